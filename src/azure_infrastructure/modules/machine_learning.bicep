// The workspace, its registry, its clusters and the empty endpoint.

param name string
param location string
param tags object
param cpuSize string
param gpuSize string
param maxNodes int
param storageAccountId string
param keyVaultId string
param applicationInsightsId string
param jobsIdentityId string
param endpointIdentityId string
param endpointIdentityName string
param engineersGroupId string
param workflowsPrincipalId string
param jobsPrincipalId string
param endpointPrincipalId string

var clusters = [
  {
    name: 'cpu-cluster'
    size: cpuSize
  }
  {
    name: 'gpu-cluster'
    size: gpuSize
  }
]

var roles = {
  azureMlDataScientist: 'f6c7c914-8db3-469d-8ca1-694a8f32e121'
  acrPull: '7f951dda-4ed3-4680-a7ca-43fe172d538d'
  managedIdentityOperator: 'f1a07417-d97a-45cb-824c-7a7467783830'
}

var runners = [
  {
    principalId: engineersGroupId
    principalType: 'Group'
  }
  {
    principalId: jobsPrincipalId
    principalType: 'ServicePrincipal'
  }
  {
    principalId: workflowsPrincipalId
    principalType: 'ServicePrincipal'
  }
]

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' = {
  name: '${name}${uniqueString(resourceGroup().id)}'
  location: location
  tags: tags
  sku: {
    name: 'Basic'
  }
  properties: {
    adminUserEnabled: false
  }
}

resource workspace 'Microsoft.MachineLearningServices/workspaces@2024-10-01' = {
  name: '${name}-workspace'
  location: location
  tags: tags
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    friendlyName: 'Active Learning Loop'
    storageAccount: storageAccountId
    keyVault: keyVaultId
    applicationInsights: applicationInsightsId
    containerRegistry: registry.id
    systemDatastoresAuthMode: 'identity'
  }
}

// Nothing runs, and nothing is paid, while there is no job.
resource computes 'Microsoft.MachineLearningServices/workspaces/computes@2024-10-01' = [for cluster in clusters: {
  parent: workspace
  name: cluster.name
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${jobsIdentityId}': {}
    }
  }
  properties: {
    computeType: 'AmlCompute'
    disableLocalAuth: true
    properties: {
      vmSize: cluster.size
      vmPriority: 'Dedicated'
      remoteLoginPortPublicAccess: 'Disabled'
      scaleSettings: {
        minNodeCount: 0
        maxNodeCount: maxNodes
        nodeIdleTimeBeforeScaleDown: 'PT5M'
      }
    }
  }
}]

// An endpoint costs nothing until a color is deployed to it. It is made here with its
// identity, so that who deploys need not hand identities out.
resource endpoint 'Microsoft.MachineLearningServices/workspaces/onlineEndpoints@2024-10-01' = {
  parent: workspace
  name: '${name}-${take(uniqueString(resourceGroup().id), 6)}'
  location: location
  tags: tags
  kind: 'Managed'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${endpointIdentityId}': {}
    }
  }
  properties: {
    authMode: 'AADToken'
    description: 'The champion answers here.'
  }
}

resource runnersUseWorkspace 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for runner in runners: {
  name: guid(workspace.id, runner.principalId, roles.azureMlDataScientist)
  scope: workspace
  properties: {
    principalId: runner.principalId
    principalType: runner.principalType
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.azureMlDataScientist)
  }
}]

resource endpointIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' existing = {
  name: endpointIdentityName
}

// Whoever changes an endpoint that acts as an identity must be allowed to assign it.
resource runnersAssignIdentity 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for runner in runners: {
  name: guid(endpointIdentity.id, runner.principalId, roles.managedIdentityOperator)
  scope: endpointIdentity
  properties: {
    principalId: runner.principalId
    principalType: runner.principalType
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.managedIdentityOperator)
  }
}]

resource pullers 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for puller in [
  endpointPrincipalId
  jobsPrincipalId
]: {
  name: guid(registry.id, puller, roles.acrPull)
  scope: registry
  properties: {
    principalId: puller
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.acrPull)
  }
}]

output workspaceName string = workspace.name
// The default container of the workspace, in which exports of labels appear.
output containerName string = 'azureml-blobstore-${workspace.properties.workspaceId}'
output endpointName string = endpoint.name
output trackingUri string = 'azureml://${location}.api.azureml.ms/mlflow/v1.0${workspace.id}'

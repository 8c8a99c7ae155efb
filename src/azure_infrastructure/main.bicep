// The whole estate of the loop in one resource group. No key stands anywhere: every
// part knows every other by an identity and a role.
//
// az deployment group create --resource-group GROUP --template-file main.bicep \
//   --parameters @parameters.example.json

targetScope = 'resourceGroup'

@description('What every name begins with: lower case letters and digits.')
@minLength(3)
@maxLength(11)
param name string

@description('Where everything is.')
param location string = resourceGroup().location

@description('The GitHub repository that a finished export wakes: owner/name.')
param gitHubRepository string

@description('Object id of the Entra group of the engineers: they run pipelines by hand.')
param engineersGroupId string

@description('The GitHub environment whose jobs may sign in.')
param gitHubEnvironment string = 'azure'

@description('The cluster of Azure Data Explorer. Dev has no guarantee and the lowest price.')
param dataExplorerSku object = {
  name: 'Dev(No SLA)_Standard_E2a_v4'
  tier: 'Basic'
  capacity: 1
}

@description('Machines for scoring and selecting.')
param cpuSize string = 'Standard_DS3_v2'

@description('Machines for training.')
param gpuSize string = 'Standard_NC4as_T4_v3'

@description('Machines of each cluster at most; none runs while there is no job.')
@minValue(1)
param maxNodes int = 4

param tags object = {
  project: 'active-learning-loop'
}

module identities 'modules/identities.bicep' = {
  name: 'identities'
  params: {
    name: name
    location: location
    tags: tags
    gitHubRepository: gitHubRepository
    gitHubEnvironment: gitHubEnvironment
  }
}

module storage 'modules/storage.bicep' = {
  name: 'storage'
  params: {
    name: name
    location: location
    tags: tags
    engineersGroupId: engineersGroupId
    workflowsPrincipalId: identities.outputs.workflowsPrincipalId
    endpointPrincipalId: identities.outputs.endpointPrincipalId
    jobsPrincipalId: identities.outputs.jobsPrincipalId
    functionPrincipalId: identities.outputs.functionPrincipalId
  }
}

module watching 'modules/watching.bicep' = {
  name: 'watching'
  params: {
    name: name
    location: location
    tags: tags
    functionPrincipalId: identities.outputs.functionPrincipalId
    endpointPrincipalId: identities.outputs.endpointPrincipalId
  }
}

module vault 'modules/vault.bicep' = {
  name: 'vault'
  params: {
    name: name
    location: location
    tags: tags
    functionPrincipalId: identities.outputs.functionPrincipalId
    engineersGroupId: engineersGroupId
  }
}

module events 'modules/events.bicep' = {
  name: 'events'
  params: {
    name: name
    location: location
    tags: tags
    storageAccountName: storage.outputs.accountName
    queueName: storage.outputs.exportsQueueName
  }
}

module dataExplorer 'modules/data_explorer.bicep' = {
  name: 'data-explorer'
  params: {
    name: name
    location: location
    tags: tags
    sku: dataExplorerSku
    engineersGroupId: engineersGroupId
    workflowsPrincipalId: identities.outputs.workflowsPrincipalId
    endpointPrincipalId: identities.outputs.endpointPrincipalId
    jobsPrincipalId: identities.outputs.jobsPrincipalId
  }
}

module machineLearning 'modules/machine_learning.bicep' = {
  name: 'machine-learning'
  params: {
    name: name
    location: location
    tags: tags
    cpuSize: cpuSize
    gpuSize: gpuSize
    maxNodes: maxNodes
    storageAccountId: storage.outputs.accountId
    keyVaultId: vault.outputs.vaultId
    applicationInsightsId: watching.outputs.applicationInsightsId
    jobsIdentityId: identities.outputs.jobsIdentityId
    endpointIdentityId: identities.outputs.endpointIdentityId
    endpointIdentityName: identities.outputs.endpointIdentityName
    engineersGroupId: engineersGroupId
    workflowsPrincipalId: identities.outputs.workflowsPrincipalId
    jobsPrincipalId: identities.outputs.jobsPrincipalId
    endpointPrincipalId: identities.outputs.endpointPrincipalId
  }
}

module exportsTrigger 'modules/function.bicep' = {
  name: 'function'
  params: {
    name: name
    location: location
    tags: tags
    gitHubRepository: gitHubRepository
    gitHubTokenUri: vault.outputs.gitHubTokenUri
    labelsStorageName: storage.outputs.accountName
    applicationInsightsName: watching.outputs.applicationInsightsName
    functionIdentityId: identities.outputs.functionIdentityId
    functionClientId: identities.outputs.functionClientId
    functionPrincipalId: identities.outputs.functionPrincipalId
  }
}

// What conf/azure reads, by the names of its variables.
output AZURE_SUBSCRIPTION_ID string = subscription().subscriptionId
output AZURE_RESOURCE_GROUP string = resourceGroup().name
output AZUREML_WORKSPACE_NAME string = machineLearning.outputs.workspaceName
output AL_STORAGE_ACCOUNT string = storage.outputs.accountName
output AL_ADX_CLUSTER string = dataExplorer.outputs.clusterUri
output AL_ADX_DATABASE string = dataExplorer.outputs.databaseName
output AL_LABELING_CONTAINER string = machineLearning.outputs.containerName
output AL_ENDPOINT string = machineLearning.outputs.endpointName
output AL_ENDPOINT_IDENTITY_ID string = identities.outputs.endpointIdentityId
output AL_ENDPOINT_CLIENT_ID string = identities.outputs.endpointClientId
output MLFLOW_TRACKING_URI string = machineLearning.outputs.trackingUri

// What deploying the code needs beside them.
output FUNCTION_APP_NAME string = exportsTrigger.outputs.functionAppName
output KEY_VAULT_NAME string = vault.outputs.vaultName
output JOBS_IDENTITY_CLIENT_ID string = identities.outputs.jobsClientId

// What GitHub's workflows sign in with: places and a name, no secret.
output AZURE_CLIENT_ID string = identities.outputs.workflowsClientId
output AZURE_TENANT_ID string = subscription().tenantId

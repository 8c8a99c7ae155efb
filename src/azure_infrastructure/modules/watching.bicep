// Logs and metrics of the Function, the endpoint and the workspace.

param name string
param location string
param tags object
param functionPrincipalId string
param endpointPrincipalId string

var roles = {
  monitoringMetricsPublisher: '3913510d-42f4-4e42-8a64-420c390055eb'
}

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: '${name}-logs'
  location: location
  tags: tags
  properties: {
    retentionInDays: 30
    sku: {
      name: 'PerGB2018'
    }
  }
}

resource applicationInsights 'Microsoft.Insights/components@2020-02-02' = {
  name: '${name}-insights'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: logs.id
  }
}

resource senders 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for sender in [
  functionPrincipalId
  endpointPrincipalId
]: {
  name: guid(applicationInsights.id, sender, roles.monitoringMetricsPublisher)
  scope: applicationInsights
  properties: {
    principalId: sender
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.monitoringMetricsPublisher)
  }
}]

output applicationInsightsId string = applicationInsights.id
output applicationInsightsName string = applicationInsights.name

// Predictions and labels: a cluster that takes streams, and its one database.

param name string
param location string
param tags object
param sku object
param engineersGroupId string
param workflowsPrincipalId string
param endpointPrincipalId string
param jobsPrincipalId string

// Who adds rows looks at the columns of the table first. `kedro azure-tables --apply`
// needs an Admin, which the engineers are.
var writers = [
  endpointPrincipalId
  jobsPrincipalId
  workflowsPrincipalId
]
var writerRoles = [
  'Ingestor'
  'Viewer'
]

resource cluster 'Microsoft.Kusto/clusters@2023-08-15' = {
  name: '${name}${take(uniqueString(resourceGroup().id), 8)}'
  location: location
  tags: tags
  sku: sku
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    enableStreamingIngest: true
    enableAutoStop: true
    enableDiskEncryption: true
  }
}

resource database 'Microsoft.Kusto/clusters/databases@2023-08-15' = {
  parent: cluster
  name: 'loop'
  location: location
  kind: 'ReadWrite'
  properties: {
    softDeletePeriod: 'P730D'
    hotCachePeriod: 'P31D'
  }
}

// Each pair of a writer and a role.
resource writersMayWrite 'Microsoft.Kusto/clusters/databases/principalAssignments@2023-08-15' = [for n in range(0, length(writers) * length(writerRoles)): {
  parent: database
  name: guid(database.id, writers[n / 2], writerRoles[n % 2])
  properties: {
    principalId: writers[n / 2]
    principalType: 'App'
    role: writerRoles[n % 2]
    tenantId: subscription().tenantId
  }
}]

resource engineersMayDoAll 'Microsoft.Kusto/clusters/databases/principalAssignments@2023-08-15' = {
  parent: database
  name: guid(database.id, engineersGroupId, 'Admin')
  properties: {
    principalId: engineersGroupId
    principalType: 'Group'
    role: 'Admin'
    tenantId: subscription().tenantId
  }
}

output clusterUri string = cluster.properties.uri
output databaseName string = 'loop'

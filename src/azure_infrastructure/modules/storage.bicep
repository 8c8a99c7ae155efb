// Images, what is to be labeled, all that the loop writes, and the queue of events.

param name string
param location string
param tags object
param engineersGroupId string
param workflowsPrincipalId string
param endpointPrincipalId string
param jobsPrincipalId string
param functionPrincipalId string

var containerNames = [
  'images'
  'labeling'
  'loop'
]

var roles = {
  storageBlobDataContributor: 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
  storageBlobDataReader: '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'
  storageQueueDataReader: '19e7f393-937e-4f77-808e-94535e297925'
  storageQueueDataMessageProcessor: '8a0f0c08-91a1-4084-bc3d-661d67233fed'
  storageQueueDataMessageSender: 'c6a89b2d-59bc-44d0-9896-0f6e12d7b80a'
}

// Whoever runs pipelines, by hand, in a workflow or on a cluster.
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

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: '${name}${uniqueString(resourceGroup().id)}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: 'Standard_LRS'
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: account
  name: 'default'
  properties: {
    deleteRetentionPolicy: {
      enabled: true
      days: 14
    }
  }
}

resource containers 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = [for container in containerNames: {
  parent: blobs
  name: container
  properties: {
    publicAccess: 'None'
  }
}]

// Which events the Function has seen.
resource ledger 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: blobs
  name: 'label-events'
  properties: {
    publicAccess: 'None'
  }
}

resource queueService 'Microsoft.Storage/storageAccounts/queueServices@2023-05-01' = {
  parent: account
  name: 'default'
}

resource exportsQueue 'Microsoft.Storage/storageAccounts/queueServices/queues@2023-05-01' = {
  parent: queueService
  name: 'label-exports'
}

resource poisonQueue 'Microsoft.Storage/storageAccounts/queueServices/queues@2023-05-01' = {
  parent: queueService
  name: 'label-exports-poison'
}

resource runnersWriteBlobs 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for runner in runners: {
  name: guid(account.id, runner.principalId, roles.storageBlobDataContributor)
  scope: account
  properties: {
    principalId: runner.principalId
    principalType: runner.principalType
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.storageBlobDataContributor)
  }
}]

// The endpoint reads images that it is asked about, and its model.
resource endpointReadsBlobs 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, endpointPrincipalId, roles.storageBlobDataReader)
  scope: account
  properties: {
    principalId: endpointPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.storageBlobDataReader)
  }
}

resource imageStore 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' existing = {
  parent: blobs
  name: 'images'
}

// Images that come with a request are kept before it is answered.
resource endpointKeepsImages 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(imageStore.id, endpointPrincipalId, roles.storageBlobDataContributor)
  scope: imageStore
  dependsOn: [
    containers
  ]
  properties: {
    principalId: endpointPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.storageBlobDataContributor)
  }
}

// The Function writes down which events it has seen, and nothing else.
resource functionWritesLedger 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(ledger.id, functionPrincipalId, roles.storageBlobDataContributor)
  scope: ledger
  properties: {
    principalId: functionPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.storageBlobDataContributor)
  }
}

resource functionTakesMessages 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(exportsQueue.id, functionPrincipalId, roles.storageQueueDataMessageProcessor)
  scope: exportsQueue
  properties: {
    principalId: functionPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.storageQueueDataMessageProcessor)
  }
}

// How long the queue is says whether another instance is started.
resource functionReadsQueues 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, functionPrincipalId, roles.storageQueueDataReader)
  scope: account
  properties: {
    principalId: functionPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.storageQueueDataReader)
  }
}

resource functionSendsPoison 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(poisonQueue.id, functionPrincipalId, roles.storageQueueDataMessageSender)
  scope: poisonQueue
  properties: {
    principalId: functionPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.storageQueueDataMessageSender)
  }
}

output accountId string = account.id
output accountName string = account.name
output exportsQueueName string = exportsQueue.name

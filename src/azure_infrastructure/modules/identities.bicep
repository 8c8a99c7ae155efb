// Who the parts are: one identity for each that acts by itself.

param name string
param location string
param tags object
param gitHubRepository string
param gitHubEnvironment string

// The online endpoint: reads images and its model, writes predictions.
resource endpointIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-endpoint'
  location: location
  tags: tags
}

// The compute clusters: whatever a pipeline reads and writes.
resource jobsIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-jobs'
  location: location
  tags: tags
}

// The Function: takes events from a queue and asks GitHub for a run.
resource functionIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-function'
  location: location
  tags: tags
}

// GitHub's workflows: they sign in by who they are, and nobody keeps a password.
resource workflowsIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-workflows'
  location: location
  tags: tags
}

resource environmentIsTrusted 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = {
  parent: workflowsIdentity
  name: 'environment'
  properties: {
    issuer: 'https://token.actions.githubusercontent.com'
    subject: 'repo:${gitHubRepository}:environment:${gitHubEnvironment}'
    audiences: [
      'api://AzureADTokenExchange'
    ]
  }
}

output endpointIdentityId string = endpointIdentity.id
output endpointIdentityName string = endpointIdentity.name
output endpointClientId string = endpointIdentity.properties.clientId
output endpointPrincipalId string = endpointIdentity.properties.principalId
output jobsIdentityId string = jobsIdentity.id
output jobsPrincipalId string = jobsIdentity.properties.principalId
output jobsClientId string = jobsIdentity.properties.clientId
output functionIdentityId string = functionIdentity.id
output functionPrincipalId string = functionIdentity.properties.principalId
output functionClientId string = functionIdentity.properties.clientId
output workflowsPrincipalId string = workflowsIdentity.properties.principalId
output workflowsClientId string = workflowsIdentity.properties.clientId

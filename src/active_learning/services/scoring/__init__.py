"""Scoring: a released model answers, one request or a whole store at a time.

``model`` reads a release and answers from it; ``export`` makes one from a trained
classifier. Only the latter imports torch.
"""

# Headers of a request. The first is Azure's own: it goes to that deployment, whatever
# its traffic is. The second makes a retry count once; the third, "false", asks for an
# answer that is not kept, as a smoke test does.
DEPLOYMENT_HEADER = "azureml-model-deployment"
PREDICTION_ID_HEADER = "x-prediction-id"
COLLECT_HEADER = "x-collect"

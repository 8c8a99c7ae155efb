"""Monitor: has what arrives changed, and how often is the model right on it?"""

"""What a stage is made from and leaves: the groups it is trained on, its first weights, the models it saves."""

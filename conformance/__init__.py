"""Is every decoder of the installed Transformers read exactly, or refused?"""

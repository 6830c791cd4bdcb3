"""The local web application: one model in memory, one question at a time.

Nothing here is imported by the rest of the package; FastAPI and uvicorn are needed only
here (the extra `serve`).
"""

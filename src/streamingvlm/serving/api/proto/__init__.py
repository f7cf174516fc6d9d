"""The gRPC contract, `streamingvlm.proto`, and the Python that is generated from it. Other languages generate theirs from the same file.

    python -m streamingvlm.serving.api.proto.generate      # writes *_pb2* anew; a test holds them to the contract
"""

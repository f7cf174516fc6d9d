"""What of people may be kept and shown: the redactor, which every picture goes through before it is stored or sent, and how long records stay.

`redactor.Redacted` is the one type that writers and senders of pixels take, and the redactor alone makes it. Knows no camera's source and no door.
"""

"""`python -m streamingvlm.cli`: the command without its script."""

import sys

from streamingvlm.cli.main import main

sys.exit(main())

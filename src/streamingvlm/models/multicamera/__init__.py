"""The article's model: many cameras in, decisions out. `network` is the door; `backbone`, `heads`, `slots`, `places`, `trm` and `hrm` its parts."""

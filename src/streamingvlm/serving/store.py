"""Records that outlive the process, in any database that SQLAlchemy speaks to. (The writing follows.)"""


class Store:
    pass

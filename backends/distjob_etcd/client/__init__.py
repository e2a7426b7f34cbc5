"""A client of etcd that does not lie: what may have been applied is not sent again, nor denied.

members.py   one address each: its channels
calls.py     one request, one answer, or how it failed; blocking, and on asyncio
cluster.py   which member is asked, for how long, with which token, and when the next one is
"""

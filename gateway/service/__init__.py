"""One gateway, from its start to its exit code.

Start: lock the spool, recover what an earlier run left, start the sender, start the receiver, listen.

Stop, at the first SIGTERM or SIGINT; a second one ends the process where it is:

    1. `/ready` and every new request answer 503, the listener closes, requests in flight are answered
    2. the journals cut their segments and end
    3. everything committed is batched and sealed
    4. everything that waits is sent
    5. exit 0 if the spool is empty, 3 if it is not

Step 1 takes `shutdown.request_timeout` at most, steps 2 to 4 together `shutdown.drain_timeout`. A crash is the ordinary way to
stop, and this order only makes it tidier: the next start delivers whatever is left.
"""

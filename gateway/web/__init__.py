"""HTTP, from the bytes of a connection to a response.

    bytes ─▶ framing (where each request begins and ends) ─▶ aiohttp's parser ─▶ handlers ─▶ intake ─▶ response

Every head is checked by `head_grammar` before a parser sees it, so that this server and a proxy before it never read the same
bytes as different requests. `responses` has the one table that turns an error into a status. A plain small report on a
connection that has sent nothing else takes the fast lane instead (`fastlane`).
"""

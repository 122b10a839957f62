"""What any caller of an AWS API needs here: calls with a deadline, their errors, proxies, a stalled call given up."""

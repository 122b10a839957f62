"""The Lightfile6 Insights Gateway: reports and specimens in over HTTP, safe on disk, out to a store exactly once.

The packages, in the order in which they may import: each only from those below it.

    cli         the command line, one file a subcommand
    service     builds one gateway, starts it, stops it in order; its worker processes
    web         HTTP: connections, routes, responses; the fast lane
    intake      from an admitted request to a commit          delivery    from what waits to an object in the store
    access      authentication                                batching    from waiting reports to a sealed archive
    admission   room: disk, memory, descriptors               stores      where objects go; the contract, S3, a directory
                                                              aws         what any caller of an AWS API needs here
    spool       received data on disk, its states, recovery
    formats     JSON and lines of it
    telemetry   log and metrics
    config      the configuration, from its sources to records
    core        errors, streams, disk, clock: what everything stands on

The two columns meet in the spool alone: neither imports the other.
"""

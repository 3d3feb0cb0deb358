vcl 4.1;
# Varnish in front of a hub, for HTTP/1.1. A stream is piped, so that a client that leaves is noticed at once.
backend hub {
    .host = "127.0.0.1";
    .port = "8000";
}

sub vcl_recv {
    if (req.url ~ "^/events") {
        return (pipe);
    }
    return (pass);
}

sub vcl_pipe {
    # One request for each connection: the next one must pass through vcl_recv.
    set bereq.http.Connection = "close";
}

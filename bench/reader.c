/* Hold thousands of streams, and note the time and the number of every event: the reader of `python -m bench.field`
 * and of `python -m bench.scale`.
 *
 * An event contains `@` and 16 digits (microseconds of CLOCK_MONOTONIC when it was published), `#` and 8 digits (its
 * number), and `~`. All other bytes are framing or filling, whatever the protocol. Commands are lines on the standard
 * input, each answered by one line of JSON:
 *
 *   connect PORT COUNT AT_ONCE FILE   connect, send the bytes of FILE, and wait for the start of each response
 *   source NUMBER                     connect from 127.0.0.NUMBER and the next addresses: 127.0.0.2 by default
 *   expect NUMBER                     clear all figures; the next event of each stream, also of new ones, has this number
 *   await TOTAL MILLISECONDS          read until there are so many events, none came for so long, or all streams ended
 *   delays FILE                       write the delays of all events as numbers of 32 bits, in microseconds
 *   close                             close all connections
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { MOST = 65536, BUFFER = 262144, TIME_DIGITS = 16, NUMBER_DIGITS = 8, PER_ADDRESS = 4000 };
enum { CLOSED, CONNECTING, ASKED, OPEN };

struct stream {
    int descriptor;
    int state;
    int place; /* characters of an event's mark that were read; 0 outside of one */
    uint64_t stamp;
    uint32_t number;
    uint32_t next; /* the number of the next event */
    char head[12];
    int head_size;
    int websocket;
};

static struct stream streams[MOST];
static int count, opened, ended, refused;
static uint32_t expected;
static uint64_t received, lost, doubled, bytes, first_at, last_at;
static uint32_t *delays;
static size_t delays_size, delays_room;
static int poller, source = 2;
static char buffer[BUFFER];

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void fail(const char *action) {
    printf("{\"error\": \"%s: %s\"}\n", action, strerror(errno));
    fflush(stdout);
    exit(1);
}

static void note_event(struct stream *stream, uint64_t at) {
    received++;
    if (!first_at) first_at = at;
    last_at = at;
    if (stream->number < stream->next) {
        doubled++;
        return;
    }
    lost += stream->number - stream->next;
    stream->next = stream->number + 1;
    if (delays_size == delays_room) {
        delays_room = delays_room ? 2 * delays_room : 1 << 16;
        delays = realloc(delays, delays_room * sizeof *delays);
        if (!delays) fail("no memory");
    }
    delays[delays_size++] = at > stream->stamp ? at - stream->stamp : 0;
}

static void scan(struct stream *stream, const char *data, size_t size, uint64_t at) {
    const char *end = data + size;
    while (data < end) {
        if (!stream->place) {
            data = memchr(data, '@', end - data);
            if (!data) return;
            data++;
            stream->place = 1;
            stream->stamp = stream->number = 0;
            continue;
        }
        char byte = *data;
        int place = stream->place;
        int digit = byte >= '0' && byte <= '9';
        if (place <= TIME_DIGITS && digit) {
            stream->stamp = stream->stamp * 10 + (byte - '0');
        } else if (place > TIME_DIGITS + 1 && place <= TIME_DIGITS + 1 + NUMBER_DIGITS && digit) {
            stream->number = stream->number * 10 + (byte - '0');
        } else if (place == TIME_DIGITS + NUMBER_DIGITS + 2 && byte == '~') {
            note_event(stream, at);
            stream->place = 0;
            data++;
            continue;
        } else if (!(place == TIME_DIGITS + 1 && byte == '#')) {
            stream->place = 0; /* the byte itself may begin a mark */
            continue;
        }
        stream->place++;
        data++;
    }
}

static void end_stream(struct stream *stream) {
    if (stream->state == OPEN) opened--, ended++;
    else refused++;
    close(stream->descriptor);
    stream->state = CLOSED;
}

static void read_stream(struct stream *stream) {
    ssize_t size = recv(stream->descriptor, buffer, BUFFER, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {
        end_stream(stream);
        return;
    }
    bytes += size;
    if (stream->state == ASKED) {
        for (ssize_t at = 0; at < size && stream->head_size < (int)sizeof stream->head; at++)
            stream->head[stream->head_size++] = buffer[at];
        if (stream->head_size < (int)sizeof stream->head) return;
        const char *status = stream->head + 9;
        if (memcmp(stream->head, "HTTP/1.", 7) || (memcmp(status, "200", 3) && memcmp(status, "101", 3))) {
            end_stream(stream);
            return;
        }
        stream->state = OPEN;
        stream->websocket = status[0] == '1';
        opened++;
    } else if (stream->websocket && (unsigned char)buffer[0] == 0x88) {
        static const unsigned char answer[] = {0x88, 0x80, 0, 0, 0, 0}; /* as every client answers a close frame */
        send(stream->descriptor, answer, sizeof answer, MSG_NOSIGNAL);
    }
    scan(stream, buffer, size, now());
}

static char request[4096];
static ssize_t request_size;

static void begin(struct stream *stream, int number, int port) {
    int on = 1;
    memset(stream, 0, sizeof *stream);
    stream->next = expected;
    stream->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (stream->descriptor < 0) fail("socket");
    /* An address has a limited number of ports, which are hard to find when most are used. */
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + source + number / PER_ADDRESS);
    setsockopt(stream->descriptor, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(stream->descriptor, (struct sockaddr *)&address, sizeof address)) fail("bind");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    if (connect(stream->descriptor, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("connect");
    stream->state = CONNECTING;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = stream};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, stream->descriptor, &event)) fail("epoll_ctl");
}

static void ask(struct stream *stream) {
    if (send(stream->descriptor, request, request_size, MSG_NOSIGNAL) != request_size) {
        end_stream(stream);
        return;
    }
    stream->state = ASKED;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, stream->descriptor, &event)) fail("epoll_ctl");
}

/* Serve all sockets that are ready; return 1 if a command is waiting. */
static int turn(int milliseconds) {
    struct epoll_event events[256];
    int command = 0;
    int ready = epoll_wait(poller, events, 256, milliseconds);
    for (int at = 0; at < ready; at++) {
        struct stream *stream = events[at].data.ptr;
        if (!stream) command = 1;
        else if (stream->state == CONNECTING) ask(stream);
        else if (stream->state != CLOSED) read_stream(stream);
    }
    return command;
}

static int by_size(const void *left, const void *right) {
    uint32_t one = *(const uint32_t *)left, other = *(const uint32_t *)right;
    return (one > other) - (one < other);
}

static void connect_all(int port, int more, int at_once) {
    uint64_t began = now(), progress = began;
    int before = opened, failed = refused, first = count, done = 0;
    if (count + more > MOST) more = MOST - count;
    while (done < more) {
        while (count < first + more && count - first - done < at_once) {
            begin(&streams[count], count, port);
            count++;
        }
        turn(10);
        int finished = opened - before + refused - failed;
        if (finished != done) progress = now();
        done = finished;
        if (now() - progress > 20000000) break;
    }
    printf("{\"opened\": %d, \"refused\": %d, \"seconds\": %.6f, \"bytes\": %llu}\n", opened - before, refused - failed,
           (now() - began) / 1e6, (unsigned long long)bytes);
}

static void await(uint64_t total, uint64_t milliseconds) {
    uint64_t before = received, progress = now();
    while (received < total && opened && now() - progress < milliseconds * 1000) {
        turn(10);
        if (received != before) before = received, progress = now();
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double spent = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    qsort(delays, delays_size, sizeof *delays, by_size);
    uint32_t half = delays_size ? delays[delays_size / 2] : 0, most = delays_size ? delays[delays_size - 1] : 0;
    uint32_t nearly = delays_size ? delays[delays_size - 1 - delays_size / 100] : 0;
    printf("{\"received\": %llu, \"lost\": %llu, \"doubled\": %llu, \"bytes\": %llu, \"open\": %d, \"ended\": %d, "
           "\"first\": %llu, \"last\": %llu, \"p50\": %u, \"p99\": %u, \"max\": %u, \"cpu\": %.6f}\n",
           (unsigned long long)received, (unsigned long long)lost, (unsigned long long)doubled,
           (unsigned long long)bytes, opened, ended, (unsigned long long)first_at, (unsigned long long)last_at, half,
           nearly, most, spent);
}

static void run(char *line) {
    char file[1024];
    int port, more, at_once;
    unsigned number;
    unsigned long long total, milliseconds;
    if (sscanf(line, "connect %d %d %d %1023s", &port, &more, &at_once, file) == 4) {
        int input = open(file, O_RDONLY);
        if (input < 0 || (request_size = read(input, request, sizeof request)) <= 0) fail(file);
        close(input);
        connect_all(port, more, at_once);
    } else if (sscanf(line, "source %d", &source) == 1) {
        printf("{}\n");
    } else if (sscanf(line, "delays %1023s", file) == 1) {
        FILE *output = fopen(file, "wb");
        if (!output || fwrite(delays, sizeof *delays, delays_size, output) != delays_size || fclose(output)) fail(file);
        printf("{}\n");
    } else if (sscanf(line, "expect %u", &number) == 1) {
        received = lost = doubled = bytes = first_at = last_at = delays_size = 0;
        expected = number;
        for (int at = 0; at < count; at++) streams[at].next = number;
        printf("{}\n");
    } else if (sscanf(line, "await %llu %llu", &total, &milliseconds) == 2) {
        await(total, milliseconds);
    } else if (!strncmp(line, "close", 5)) {
        for (int at = 0; at < count; at++)
            if (streams[at].state != CLOSED) close(streams[at].descriptor);
        count = opened = ended = refused = 0;
        printf("{}\n");
    } else {
        printf("{\"error\": \"unknown command\"}\n");
    }
    fflush(stdout);
}

int main(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event)) fail("epoll");
    char line[2048];
    for (;;) {
        if (!turn(-1)) continue;
        if (!fgets(line, sizeof line, stdin)) return 0;
        run(line);
    }
}

/* Sends one request over and over on many connections, at full speed or at a fixed rate, in one write or in two.
 *
 *   requests PORT CONNECTIONS SECONDS RATE GAP_US HEAD BODY LATENCIES
 *
 * RATE is in requests a second; with 0 each connection sends its next request as soon as the last one was answered. At a fixed
 * rate a latency runs from the instant at which the request was due, also where no connection was free to send it then, so that
 * a server that stalls cannot hide the requests it kept from being sent.
 * GAP_US is -1 for head and body in one write; else the body is a write of its own, so many microseconds after the head.
 * HEAD and BODY are files. LATENCIES gets one native 32-bit number of microseconds for each answer of a status below 400.
 * One line of JSON on STDOUT says the rest. Only 127.0.0.1 is connected to.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_BYTES = 8192, EVENTS = 256, MOST_CONNECTIONS = 4096 };
/* How long answers are waited for after the last request was due. */
static const uint64_t LINGER_NS = 10000000000u;
static const uint64_t SECOND_NS = 1000000000u;

struct connection {
    int fd;
    bool busy;
    uint64_t due;
    uint64_t body_due;
    size_t used;
    char answer[ANSWER_BYTES + 1];
};

/* Connections in the order in which they came; each is in a ring once at most. */
struct ring {
    size_t first, count;
    struct connection *items[MOST_CONNECTIONS];
};

static struct connection connections[MOST_CONNECTIONS];
static struct ring idle, without_body;
static char *head, *body, *both;
static size_t head_size, body_size, busy_count;
static int64_t gap_us;
static uint32_t *latencies;
static size_t answered, room;
static uint64_t refused, broken, last_answer;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void push(struct ring *ring, struct connection *item) {
    ring->items[(ring->first + ring->count++) % MOST_CONNECTIONS] = item;
}

static struct connection *pop(struct ring *ring) {
    struct connection *item = ring->items[ring->first];
    ring->first = (ring->first + 1) % MOST_CONNECTIONS;
    ring->count--;
    return item;
}

static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail(path);
    *size = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*size + 1);
    if (!data || fread(data, 1, *size, file) != *size) fail(path);
    fclose(file);
    return data;
}

static void connect_to(struct connection *connection, uint16_t port, int epoll) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    /* Without it the kernel would hold a body back until its head is acknowledged. */
    if (setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one)) fail("setsockopt");
    if (fcntl(connection->fd, F_SETFL, O_NONBLOCK)) fail("fcntl");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event)) fail("epoll_ctl");
}

/* A request is small and the only one on its connection, so that the socket's buffer always has room for it. */
static void send_all(struct connection *connection, const char *data, size_t size) {
    if (send(connection->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) broken++;
}

static void begin_request(struct connection *connection, uint64_t due) {
    connection->due = due;
    connection->busy = true;
    busy_count++;
    if (gap_us < 0) {
        send_all(connection, both, head_size + body_size);
        return;
    }
    send_all(connection, head, head_size);
    if (gap_us == 0) {
        send_all(connection, body, body_size);
        return;
    }
    connection->body_due = now_ns() + (uint64_t)gap_us * 1000;
    push(&without_body, connection);
}

static void note(uint64_t now, uint64_t due, int status) {
    last_answer = now;
    if (status < 200 || status >= 400) {
        refused++;
        return;
    }
    if (answered == room) {
        room = room ? 2 * room : 1 << 16;
        latencies = realloc(latencies, room * sizeof *latencies);
        if (!latencies) fail("realloc");
    }
    uint64_t us = (now - due) / 1000;
    latencies[answered++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void read_answer(struct connection *connection) {
    ssize_t got = recv(connection->fd, connection->answer + connection->used, ANSWER_BYTES - connection->used, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0 || !connection->busy) {
        broken++;
        return;
    }
    connection->used += (size_t)got;
    connection->answer[connection->used] = 0;
    char *end = strstr(connection->answer, "\r\n\r\n");
    if (!end) {
        if (connection->used == ANSWER_BYTES) broken++;
        return;
    }
    char *length = strcasestr(connection->answer, "\r\nContent-Length:");
    size_t rest = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    size_t whole = (size_t)(end + 4 - connection->answer) + rest;
    if (whole > ANSWER_BYTES || connection->used > whole) broken++;
    if (connection->used < whole) return;
    note(now_ns(), connection->due, atoi(connection->answer + 9));
    connection->used = 0;
    connection->busy = false;
    busy_count--;
    push(&idle, connection);
}

static void wake_at(int timer, uint64_t instant) {
    struct itimerspec spec = {.it_value = {(time_t)(instant / SECOND_NS), (long)(instant % SECOND_NS)}};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &spec, NULL)) fail("timerfd_settime");
}

static void run(int epoll, int timer, double seconds, double rate) {
    uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), due = begin, sent = 0;
    struct epoll_event events[EVENTS];
    while (!broken) {
        uint64_t now = now_ns();
        while (idle.count && (rate > 0 ? due <= now && due < end : now < end)) {
            begin_request(pop(&idle), rate > 0 ? due : now);
            due = begin + (uint64_t)((double)++sent * 1e9 / (rate > 0 ? rate : 1));
        }
        while (without_body.count && without_body.items[without_body.first]->body_due <= now)
            send_all(pop(&without_body), body, body_size);
        bool over = rate > 0 ? due >= end : now >= end;
        if ((over && !busy_count) || now > end + LINGER_NS) break;
        uint64_t wake = end + LINGER_NS;
        if (without_body.count) wake = without_body.items[without_body.first]->body_due;
        if (rate > 0 && !over && idle.count && due < wake) wake = due;
        wake_at(timer, wake);
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int each = 0; each < ready; each++)
            if (events[each].data.ptr) read_answer(events[each].data.ptr);
    }
    printf("{\"requests\":%zu,\"seconds\":%.6f,\"refused\":%lu,\"broken\":%lu,\"unanswered\":%zu}\n", answered,
           last_answer > begin ? (double)(last_answer - begin) / 1e9 : seconds, (unsigned long)refused, (unsigned long)broken,
           busy_count);
}

int main(int count, char **arguments) {
    if (count != 9 || atoi(arguments[2]) < 1 || atoi(arguments[2]) > MOST_CONNECTIONS) {
        fputs("usage: requests PORT CONNECTIONS SECONDS RATE GAP_US HEAD BODY LATENCIES\n", stderr);
        return 2;
    }
    gap_us = atoll(arguments[5]);
    head = read_file(arguments[6], &head_size);
    body = read_file(arguments[7], &body_size);
    both = malloc(head_size + body_size);
    if (!both) fail("malloc");
    memcpy(mempcpy(both, head, head_size), body, body_size);
    int epoll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    /* Edge-triggered: to set the timer anew is enough, and nothing has to be read from it. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    if (epoll < 0 || timer < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event)) fail("epoll");
    for (int each = 0; each < atoi(arguments[2]); each++) {
        connect_to(&connections[each], (uint16_t)atoi(arguments[1]), epoll);
        push(&idle, &connections[each]);
    }
    run(epoll, timer, atof(arguments[3]), atof(arguments[4]));
    FILE *file = fopen(arguments[8], "wb");
    if (!file || fwrite(latencies, sizeof *latencies, answered, file) != answered || fclose(file)) fail(arguments[8]);
    return 0;
}

/* The status page, asked over a plain socket. */
#include "sched/page.h"

#include "cluster/status.h"
#include "tests/suite.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static char answer[65536];

/* Sends a request and reads the whole answer. */
static void ask(int port, const char *request)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t n = 0;
    answer[0] = '\0';
    CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    CU_ASSERT(write(fd, request, strlen(request)) > 0);
    for (ssize_t got;
         n < sizeof(answer) - 1 && (got = read(fd, answer + n, sizeof(answer) - 1 - n)) > 0;)
        n += (size_t)got;
    answer[n] = '\0';
    close(fd);
}

static void get(int port, const char *path)
{
    char request[256];
    snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
             path);
    ask(port, request);
}

/* On any free port of an interface, by name; which port. */
static int start(struct schd_page **page_p)
{
    static const char loopback[] = "http://127.0.0.1:";
    CU_ASSERT_EQUAL_FATAL(schd_page_start("lo", 0, page_p), CLU_OK);
    const char *url = schd_page_url(*page_p);
    CU_ASSERT_EQUAL_FATAL(strncmp(url, loopback, strlen(loopback)), 0);
    return atoi(url + strlen(loopback));
}

static void test_the_page_serves_what_it_was_last_given(void)
{
    struct schd_page *page = NULL;
    int port = start(&page);
    get(port, "/");
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "200 OK"));
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "<title>sluice</title>"));
    schd_page_update(
        page, (struct schd_page_texts){strdup("{\"step\":1}"), strdup("sluice_step 1\n"), NULL});
    schd_page_update(page, (struct schd_page_texts){strdup("{\"step\":2}"), NULL, NULL});
    get(port, "/status.json");
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "application/json"));
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "{\"step\":2}"));
    get(port, "/metrics");
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "sluice_step 1\n"));
    schd_page_stop(page);
}

static void test_other_requests_are_refused(void)
{
    struct schd_page *page = NULL;
    int port = start(&page);
    get(port, "/etc/passwd");
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "404"));
    ask(port, "DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "405"));
    ask(port, "garbage\r\n\r\n");
    struct schd_page *other = NULL;
    CU_ASSERT_NOT_EQUAL(start(&other), port);
    schd_page_stop(other);
    schd_page_stop(page);
    schd_page_stop(NULL);
    CU_ASSERT_EQUAL(schd_page_start("no such place", 0, &page), CLU_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(schd_page_start("127.0.0.1", 65536, &page), CLU_E_UNAVAILABLE);
}

SUITE("sched.page", T(test_the_page_serves_what_it_was_last_given),
      T(test_other_requests_are_refused))

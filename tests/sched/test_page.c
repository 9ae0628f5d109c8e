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

static void test_the_page_serves_what_it_was_last_given(void)
{
    struct schd_page *page = NULL;
    int port = 0;
    CU_ASSERT_EQUAL_FATAL(schd_page_start("127.0.0.1", 0, &page, &port), CLU_OK);
    CU_ASSERT(port > 0);
    get(port, "/");
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "200 OK"));
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "<title>sluice</title>"));
    schd_page_update(page, strdup("{\"step\":1}"), strdup("sluice_step 1\n"));
    schd_page_update(page, strdup("{\"step\":2}"), NULL);
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
    int port = 0;
    CU_ASSERT_EQUAL_FATAL(schd_page_start("127.0.0.1", 0, &page, &port), CLU_OK);
    get(port, "/etc/passwd");
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "404"));
    ask(port, "DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "405"));
    ask(port, "garbage\r\n\r\n");
    struct schd_page *other = NULL;
    int other_port = 0;
    CU_ASSERT_EQUAL(schd_page_start("127.0.0.1", 0, &other, &other_port), CLU_OK);
    CU_ASSERT_NOT_EQUAL(other_port, port);
    schd_page_stop(other);
    schd_page_stop(page);
    schd_page_stop(NULL);
}

SUITE("sched.page", T(test_the_page_serves_what_it_was_last_given),
      T(test_other_requests_are_refused))

package interop_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// reply is what a device was answered over HTTP.
type reply struct {
	version string // HTTP/1.1, HTTP/2
	status  int
	header  http.Header
	body    string
}

// says fails the test unless the answer has the status and, unless text is "", is
// the error of that text.
func (r reply) says(t *testing.T, status int, text string) {
	t.Helper()
	if r.status != status {
		t.Errorf("answered %d %s; want %d %q", r.status, r.body, status, text)
		return
	}
	if text == "" {
		return
	}
	if want := `{"error":` + strconv.Quote(text) + `}`; r.body != want {
		t.Errorf("%d says %s; want %s", status, r.body, want)
	}
	if got := r.header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("%d has content type %q", status, got)
	}
}

// accepted ends the test unless the answer is that of an upload that went well.
func (r reply) accepted(t *testing.T) {
	t.Helper()
	if r.status != http.StatusAccepted || r.body != "" || r.header.Get("Content-Length") != "0" {
		t.Fatalf("answered %d %q, content length %q; want 202 and nothing more", r.status, r.body, r.header.Get("Content-Length"))
	}
}

// request is an upload with curl. The zero request posts "22.5" as text/plain to
// telemetry on the plain listener and proves nothing.
type request struct {
	method, target string   // "" = POST, /telemetry
	user           string   // auth-id@tenant, with the password of a plant's device
	args           []string // further ones of curl
	header         []string // "Name: value"
	contentType    string   // "" = text/plain, "-" = none
	body           string   // "" = 22.5, "-" = none
	secure         bool     // the TLS listener, by its name
	base           string   // "" = the listener
}

func (q request) curl(t *testing.T, p *plant) reply {
	t.Helper()
	args, body := q.line(p)
	return runCurl(t, body, args...)
}

// line is curl's command line and its input.
func (q request) line(p *plant) (args []string, stdin string) {
	orElse := func(s *string, otherwise string) {
		if *s == "" {
			*s = otherwise
		} else if *s == "-" {
			*s = ""
		}
	}
	orElse(&q.method, http.MethodPost)
	orElse(&q.target, "/telemetry")
	orElse(&q.contentType, "text/plain")
	orElse(&q.body, "22.5")
	args = []string{"-sS", "-i", "--path-as-is", "--data-binary", "@-", "-X", q.method, "-H", "Content-Type: " + q.contentType}
	if q.contentType == "" {
		args[len(args)-1] = "Content-Type:"
	}
	if q.secure {
		orElse(&q.base, "https://localhost:"+port(p.deviceTLS))
		args = append(args, "--cacert", p.ca)
	}
	orElse(&q.base, "http://"+p.device)
	if q.user != "" {
		authID, _, _ := strings.Cut(q.user, "@")
		args = append(args, "-u", q.user+":"+password(authID))
	}
	for _, line := range q.header {
		args = append(args, "-H", line)
	}
	return append(append(args, q.args...), q.base+q.target), q.body
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// runCurl runs curl with -i and takes its answer apart.
func runCurl(t *testing.T, stdin string, args ...string) reply {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "curl", args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("curl %q: %v: %s", args, err, &stderr)
	}
	r, err := parseReply(out)
	if err != nil {
		t.Fatalf("curl %q: %v in %q", args, err, out)
	}
	return r
}

func parseReply(out []byte) (r reply, err error) {
	in := textproto.NewReader(bufio.NewReader(bytes.NewReader(out)))
	line, err := in.ReadLine()
	if err != nil {
		return reply{}, err
	}
	version, rest, ok := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	if r.status, err = strconv.Atoi(code); !ok || err != nil {
		return reply{}, errors.New("no status line: " + line)
	}
	header, err := in.ReadMIMEHeader()
	if err != nil {
		return reply{}, err
	}
	body, err := io.ReadAll(in.R)
	r.version, r.header, r.body = version, http.Header(header), string(body)
	return r, err
}

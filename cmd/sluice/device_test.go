package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// ran is what a command said.
type ran struct {
	out, err string // standard output and error
	failure  error
}

// runWith runs a command with something on standard input.
func runWith(t *testing.T, cmd *cobra.Command, stdin io.Reader, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	failure := cmd.ExecuteContext(t.Context())
	return ran{out.String(), errs.String(), failure}
}

// fakeAPI answers one request after the other with one of its functions, the
// last one from then on. It notes the bodies.
type fakeAPI struct {
	*httptest.Server
	bodies []string
	count  int
}

func newFakeAPI(t *testing.T, answers ...http.HandlerFunc) *fakeAPI {
	f := &fakeAPI{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(b))
		user, password, _ := r.BasicAuth()
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-ndjson" || user != "op" || password != "pw" {
			t.Errorf("%s %s as %s with %q", r.Method, r.URL, user, r.Header.Get("Content-Type"))
		}
		f.bodies = append(f.bodies, string(b))
		f.count++
		answers[min(f.count, len(answers))-1](w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// well answers that every line was done; a line with "bad" in it was not.
func well(w http.ResponseWriter, r *http.Request) { results(w, r, -1) }

// results answers for the first lines, n of them or all.
func results(w http.ResponseWriter, r *http.Request, n int) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	b, _ := io.ReadAll(r.Body)
	count, failed := 0, 0
	for line := range strings.Lines(string(b)) {
		var in struct {
			Op, ID string
			End    bool
		}
		json.Unmarshal([]byte(line), &in)
		if in.End || count == n {
			break
		}
		count++
		if strings.Contains(line, "bad") {
			failed++
			fmt.Fprintf(w, `{"line":%d,"id":%q,"status":404,"error":"device not found"}`+"\n", count, in.ID)
		} else if in.Op == "create" {
			fmt.Fprintf(w, `{"line":%d,"id":%q,"status":201,"auth-id":"a-%s","password":"pw-%s"}`+"\n", count, in.ID, in.ID, in.ID)
		} else {
			fmt.Fprintf(w, `{"line":%d,"id":%q,"status":204,"etag":"e"}`+"\n", count, in.ID)
		}
	}
	if n < 0 {
		fmt.Fprintf(w, `{"done":true,"items":%d,"succeeded":%d,"failed":%d}`+"\n", count, count-failed, failed)
	}
}

// says answers with a status and a body.
func says(code int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

// smallerThan refuses bodies of more bytes.
func smallerThan(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if len(b) > n {
			says(413, fmt.Sprintf(`{"error":"the body is larger than the limit of %d bytes"}`, n))(w, r)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		well(w, r)
	}
}

// breaks answers for n lines and cuts the connection.
func breaks(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		results(w, r, n)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// ends answers for n lines and says that it ended early.
func ends(n int, last string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		results(w, r, n)
		io.WriteString(w, last+"\n")
	}
}

// deletes are so many lines of one length.
func deletes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"op":"delete","id":"d%03d"}`+"\n", i+1)
	}
	return b.String()
}

func TestDeviceImport(t *testing.T) {
	const lineSize = len(`{"op":"delete","id":"d001"}` + "\n")
	cases := map[string]struct {
		answers  []http.HandlerFunc
		input    string
		args     []string
		failure  string // of the command, "" = none
		err, out string // parts of what is printed, separated by |
		requests int
	}{
		"nothing":   {answers: []http.HandlerFunc{well}, input: "\n \n", err: "0 items in 0 requests"},
		"one call":  {answers: []http.HandlerFunc{well}, input: deletes(100), requests: 1, err: "100 items in 1 request and |100 done, 0 failed"},
		"by number": {answers: []http.HandlerFunc{well}, input: deletes(maxItems + 1), requests: 2, err: "5001 done"},
		"by size":   {answers: []http.HandlerFunc{well}, input: deletes(10), args: []string{"--split", fmt.Sprint(3 * lineSize)}, requests: 4, err: "10 items in 4 requests"},
		"shorter than a line": {answers: []http.HandlerFunc{well}, input: deletes(3), args: []string{"--split", "1"}, requests: 3,
			err: "3 items in 3 requests"},
		"last line without end": {answers: []http.HandlerFunc{well}, input: strings.TrimSuffix(deletes(2), "\n"), requests: 1, err: "2 done"},
		"line numbers": {answers: []http.HandlerFunc{well}, args: []string{"--split", fmt.Sprint(2 * lineSize)}, requests: 3,
			input:   "\n" + deletes(3) + "\n" + `{"op":"enable","id":"bad"}` + "\n\n" + deletes(1),
			failure: "1 of 5 items failed", err: "line 6 bad: device not found (404)|4 done, 1 failed"},
		"passwords": {answers: []http.HandlerFunc{well}, input: `{"op":"create","id":"x"}` + "\n" + `{"op":"delete","id":"y"}`, requests: 1,
			out: "x\ta-x\tpw-x\n"},
		"as JSON": {answers: []http.HandlerFunc{well}, args: []string{"-o", "json", "--split", "1"}, input: "\n" + `{"op":"create","id":"x"}` + "\n" + deletes(1), requests: 2,
			out: `{"line":2,"id":"x","status":201,"auth-id":"a-x","password":"pw-x"}` + "\n" + `{"line":3,"id":"d001","status":204,"etag":"e"}` + "\n" +
				`{"done":true,"items":2,"succeeded":2,"failed":0,"requests":2}` + "\n"},
		"too large": {answers: []http.HandlerFunc{smallerThan(30 * lineSize)}, input: deletes(100), requests: 6,
			err: "413: the body is larger than the limit of 840 bytes; requests have at most 1400 bytes from now on|at most 700 bytes|100 done"},
		"too large, not ours": {answers: []http.HandlerFunc{says(413, `{"message":"Request Too Long"}`), well}, input: deletes(4), requests: 3,
			err: "413: Request Too Long; requests have at most 56 bytes|4 done"},
		"one line is too large": {answers: []http.HandlerFunc{smallerThan(2 * lineSize)}, requests: 4,
			input:   deletes(1) + `{"op":"put","id":"` + strings.Repeat("x", 100) + `"}` + "\n" + deletes(1),
			failure: "1 of 3 items failed", err: "line 2: the body is larger than the limit of 56 bytes (413)|2 done"},
		"too large in the middle": {answers: []http.HandlerFunc{ends(3, `{"done":false,"items":3,"succeeded":3,"failed":0,"status":413,"error":"the body is larger"}`), well},
			input: deletes(8), requests: 3, err: "8 items in 3 requests|8 done"},
		"not admitted": {answers: []http.HandlerFunc{says(401, `{"error":"who are you"}`)}, input: deletes(3), requests: 1,
			failure: "who are you (401); nothing from line 1 on was done", err: "0 done"},
		"fails later": {answers: []http.HandlerFunc{well, says(404, `{"error":"tenant not found"}`)}, input: "\n" + deletes(4), args: []string{"--split", fmt.Sprint(2 * lineSize)},
			requests: 2, failure: "tenant not found (404); nothing from line 4 on was done", err: "2 done"},
		"asked again": {answers: []http.HandlerFunc{says(503, `{"error":"too many"}`, "Retry-After", "0"), well}, input: deletes(3), requests: 2,
			err: "too many (503); asking again in 100ms|3 done"},
		"asked again in vain": {answers: []http.HandlerFunc{says(503, `{"error":"too many"}`, "Retry-After", "0")}, input: deletes(3), requests: maxAgain,
			failure: "too many (503); nothing from line 1 on was done"},
		"503 of who knows whom": {answers: []http.HandlerFunc{says(503, `gone`, "Retry-After", "0")}, input: deletes(3), requests: 1,
			failure: "gone (503); it is not known whether lines 1 to 3 were done; later ones were not sent"},
		"ended early": {answers: []http.HandlerFunc{ends(2, `{"done":false,"items":2,"succeeded":2,"failed":0,"status":503,"error":"the store is down","not-done-from":3}`)},
			input: "\n" + deletes(9), args: []string{"--split", fmt.Sprint(5 * lineSize)}, requests: 1,
			failure: "the store is down (503); it is not known whether lines 4 to 6 were done; later ones were not sent", err: "2 done"},
		"cut off": {answers: []http.HandlerFunc{breaks(2)}, input: deletes(5), requests: 1,
			failure: "the connection broke; it is not known whether lines 3 to 5 were done; later ones were not sent", err: "2 done"},
		"cut off after the last": {answers: []http.HandlerFunc{breaks(5)}, input: deletes(5), requests: 1, failure: "the connection broke"},
		"fewer results":          {answers: []http.HandlerFunc{ends(2, `{"done":true,"items":2,"succeeded":2,"failed":0}`)}, input: deletes(5), requests: 1, failure: "2 results for 5 lines"},
		"other results":          {answers: []http.HandlerFunc{ends(0, `{"line":7,"status":204}`)}, input: deletes(5), requests: 1, failure: "a result for line 7; expected line 1 of 5"},
		"no API":                 {answers: []http.HandlerFunc{says(200, "<html>", "Content-Type", "text/html")}, input: deletes(1), requests: 1, failure: "is this a management API"},
		"redirected":             {answers: []http.HandlerFunc{says(302, "", "Location", "/elsewhere")}, input: deletes(1), requests: 1, failure: "Found (302); nothing from line 1 on"},
		"go on":                  {answers: []http.HandlerFunc{well}, input: deletes(9), args: []string{"--from", "8"}, requests: 1, err: "2 items in 1 request"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI(t, c.answers...)
			got := runWith(t, newDeviceCommand(), strings.NewReader(c.input), append([]string{"import", "T", "--url", api.URL, "--user", "op", "--password", "pw"}, c.args...)...)
			if c.failure == "" && got.failure != nil || c.failure != "" && (got.failure == nil || !strings.Contains(got.failure.Error(), c.failure)) {
				t.Errorf("got %v, want %q", got.failure, c.failure)
			}
			for part := range strings.SplitSeq(c.err, "|") {
				if !strings.Contains(got.err, part) {
					t.Errorf("no %q in\n%s", part, got.err)
				}
			}
			if got.out != c.out {
				t.Errorf("printed %q, want %q", got.out, c.out)
			}
			if api.count != c.requests {
				t.Errorf("%d requests, want %d", api.count, c.requests)
			}
		})
	}
}

func TestDeviceImportWithoutServer(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	got := runWith(t, newDeviceCommand(), strings.NewReader(deletes(2)), "import", "T", "-", "--url", server.URL, "--user", "op", "--password", "pw")
	if got.failure == nil || !strings.Contains(got.failure.Error(), "connection refused; nothing from line 1 on was done") {
		t.Errorf("got %v", got.failure)
	}
}

func TestDeviceImportInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	api := newFakeAPI(t, func(w http.ResponseWriter, r *http.Request) {
		results(w, r, 1)
		http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
	})
	cmd := newDeviceCommand()
	cmd.SetArgs([]string{"import", "T", "--url", api.URL, "--user", "op", "--password", "pw"})
	cmd.SetIn(strings.NewReader(deletes(3)))
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(ctx)
	if err == nil || !strings.Contains(err.Error(), "interrupted; it is not known whether lines ") {
		t.Errorf("got %v", err)
	}
	// An input that does not come is given up, too.
	reader, writer := io.Pipe()
	defer writer.Close()
	cmd.SetIn(reader)
	if err := cmd.ExecuteContext(ctx); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got %v", err)
	}
}

func TestDeviceImportArguments(t *testing.T) {
	t.Setenv("SLUICE_DATA", t.TempDir())
	for want, args := range map[string][]string{
		"expected a tenant and at most one file": {},
		"at most one file":                       {"T", "a", "b"},
		`".." is no tenant`:                      {".."},
		"--output \"xml\"":                       {"T", "-o", "xml"},
		"--split: \"big\" is not a size":         {"T", "--split", "big"},
		"--split 0: expected 1 to":               {"T", "--split", "0"},
		"--split 1GiB: expected 1 to":            {"T", "--split", "1GiB"},
		"--from 0: expected":                     {"T", "--from", "0"},
		"who are you?":                           {"T"},
		"expected a URL such as":                 {"T", "--url", "amqp://host:5672", "--user", "a", "--password", "b"},
		"no such file":                           {"T", "absent.ndjson", "--user", "a", "--password", "b"},
		"absent.crt":                             {"T", "--url", "https://h", "--ca", "absent.crt", "--user", "a", "--password", "b"},
	} {
		got := runWith(t, newDeviceCommand(), strings.NewReader(""), append([]string{"import"}, args...)...)
		if got.failure == nil || !strings.Contains(got.failure.Error(), want) {
			t.Errorf("%q: got %v, want %s", args, got.failure, want)
		}
	}
}

// TestDeviceImportToProgram has the real program do what a file says, in
// requests of the size that it takes.
func TestDeviceImportToProgram(t *testing.T) {
	t.Setenv("SLUICE_MANAGEMENT_MAX_BULK_SIZE", "4KiB")
	data := startUp(t)
	askManagement(t, data, http.MethodPost, "/v1/tenants/ACME", "{}")
	var lines strings.Builder
	const devices = 500
	for i := range devices {
		fmt.Fprintf(&lines, `{"op":"create","id":"meter-%03d","device":{"ext":{"site":"Kiel"}},"generate":true}`+"\n", i+1)
	}
	lines.WriteString(`{"op":"disable","id":"meter-001"}` + "\n\n" + `{"op":"delete","id":"none"}` + "\n")
	file := filepath.Join(t.TempDir(), "meters.ndjson")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	got := runWith(t, newDeviceCommand(), nil, "import", "ACME", file, "--data", data)
	if got.failure == nil || got.failure.Error() != "1 of 502 items failed" {
		t.Errorf("got %v", got.failure)
	}
	for _, want := range []string{"413: the body is larger than the limit of 4096 bytes", "line 503 none: device not found (404)", "501 done, 1 failed"} {
		if !strings.Contains(got.err, want) {
			t.Errorf("no %q in\n%s", want, got.err)
		}
	}
	passwords := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	if len(passwords) != devices || !strings.HasPrefix(passwords[0], "meter-001\tmeter-001\t") {
		t.Errorf("%d passwords, %q", len(passwords), passwords[0])
	}
	if text := askManagement(t, data, http.MethodGet, "/v1/devices/ACME?pageSize=1", ""); !strings.Contains(text, `"total":500`) {
		t.Error(text)
	}
	if text := askManagement(t, data, http.MethodGet, "/v1/devices/ACME/meter-001", ""); !strings.Contains(text, `"enabled":false`) {
		t.Error(text)
	}
	// What was done before is seen.
	if got = runWith(t, newDeviceCommand(), nil, "import", "ACME", file, "--data", data); got.failure == nil || got.failure.Error() != "501 of 502 items failed" ||
		!strings.Contains(got.err, "line 500 meter-500: ") || !strings.Contains(got.err, "(409)") {
		t.Errorf("got %v", got.failure)
	}
	if got = runWith(t, newDeviceCommand(), nil, "import", "NONE", file, "--data", data); got.failure == nil || !strings.Contains(got.failure.Error(), "(404); nothing from line 1 on was done") {
		t.Errorf("got %v", got.failure)
	}
}

// askManagement asks the management API of an installation as its operator.
func askManagement(t *testing.T, data, method, path, body string) string {
	t.Helper()
	e, err := readEnv(filepath.Join(data, operatorFile))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, e["SLUICE_URL"]+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(e["SLUICE_USER"], e["SLUICE_PASSWORD"])
	r.Header.Set("Content-Type", "application/json")
	r.Close = true
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil || reply.StatusCode >= 300 {
		t.Fatalf("%s %s: %d %s, %v", method, path, reply.StatusCode, text, err)
	}
	return string(text)
}

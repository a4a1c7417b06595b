package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const exportHead = `{"format":"sluice-tenant","version":1,"tenant-id":"T","tenant":{}}` + "\n"

// exported is an export of so many devices.
func exported(n int) string {
	var b strings.Builder
	b.WriteString(exportHead)
	for i := range n {
		fmt.Fprintf(&b, `{"id":"d%03d","device":{}}`+"\n", i+1)
	}
	fmt.Fprintf(&b, `{"end":true,"devices":%d}`+"\n", n)
	return b.String()
}

func TestTenantImport(t *testing.T) {
	lineSize := len(`{"id":"d001","device":{}}` + "\n")
	cut := func(text string, lines int) string {
		all := strings.SplitAfter(text, "\n")
		return strings.Join(all[:lines], "")
	}
	for name, c := range map[string]struct {
		answer   http.HandlerFunc
		input    string
		split    string
		failure  string
		err      string
		requests int
	}{
		"one call":           {answer: well, input: exported(10), requests: 1, err: "10 done"},
		"no device":          {answer: well, input: exported(0), requests: 1, err: "0 items in 1 request"},
		"no device, refused": {answer: says(403, `{"error":"not yours"}`), input: exported(0), requests: 1, failure: "not yours (403)"},
		"parts":              {answer: well, input: exported(10), split: fmt.Sprint(4 * lineSize), requests: 3, err: "10 items in 3 requests"},
		"too large":          {answer: smallerThan(len(exportHead) + 4*lineSize + 30), input: exported(10), requests: 7, err: "10 done"},
		"empty":              {answer: well, failure: "the export is empty"},
		"cut off":            {answer: well, input: cut(exported(10), 8), requests: 1, failure: "the export was cut off: its last line is missing, after 7 devices", err: "7 done"},
		"header only":        {answer: well, input: exportHead, failure: "cut off"},
		"other number":       {answer: well, input: strings.Replace(exported(10), `"devices":10`, `"devices":9`, 1), requests: 1, failure: "it has 10 devices, its last line says 9"},
		"line after the end": {answer: well, input: exported(3) + exported(1), requests: 1, failure: "line 6 comes after the end of the export", err: "3 done"},
		"tenant refused": {answer: ends(0, `{"line":1,"status":409,"error":"the alias is taken"}`), input: exported(2), requests: 1,
			failure: "the alias is taken (409); it is not known whether lines 2 to 3 were done"},
		"no export": {answer: says(400, `{"error":"line 1: format"}`), input: deletes(3), requests: 1, failure: "line 1: format (400); nothing from line 2 on"},
		"a device fails": {answer: well, input: strings.Replace(exported(3), "d002", "bad2", 1), requests: 1, failure: "1 of 3 items failed",
			err: "line 3 bad2: device not found (404)"},
	} {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI(t, c.answer)
			args := []string{"import", "T", "--url", api.URL, "--user", "op", "--password", "pw"}
			if c.split != "" {
				args = append(args, "--split", c.split)
			}
			got := runWith(t, newTenantCommand(), strings.NewReader(c.input), args...)
			if c.failure == "" && got.failure != nil || c.failure != "" && (got.failure == nil || !strings.Contains(got.failure.Error(), c.failure)) {
				t.Errorf("got %v, want %q", got.failure, c.failure)
			}
			if !strings.Contains(got.err, c.err) {
				t.Errorf("no %q in\n%s", c.err, got.err)
			}
			if api.count != c.requests {
				t.Errorf("%d requests, want %d", api.count, c.requests)
			}
			for _, body := range api.bodies {
				lines := strings.Count(body, "\n")
				if c.input == deletes(3) {
					continue
				}
				if !strings.HasPrefix(body, exportHead) || !strings.HasSuffix(body, fmt.Sprintf("\n{\"end\":true,\"devices\":%d}\n", lines-2)) {
					t.Errorf("a request that is no export:\n%s", body)
				}
			}
		})
	}
}

func TestTenantExport(t *testing.T) {
	for name, c := range map[string]struct {
		answer  http.HandlerFunc
		failure string
		err     string
	}{
		"whole":        {answer: says(200, exported(3)), err: "exported T with 3 devices"},
		"large":        {answer: says(200, strings.Replace(exported(2000), `"device":{}`, `"device":{"ext":{"x":"`+strings.Repeat("x", 9000)+`"}}`, 5)), err: "with 2000 devices"},
		"no device":    {answer: says(200, exported(0)), err: "with 0 devices"},
		"cut off":      {answer: says(200, exportHead), failure: "its last line is missing"},
		"other number": {answer: says(200, exported(2)+`{"end":true,"devices":2}`+"\n"), failure: "it has 3 devices, its last line says 2"},
		"nothing":      {answer: says(200, ""), failure: "its last line is missing"},
		"ended": {answer: func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, exportHead+`{"error":"the store is down"}`+"\n")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, failure: "the export is not complete: the store is down"},
		"broken": {answer: func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, exportHead)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, failure: "the export is not complete: the connection broke"},
		"refused": {answer: says(403, `{"error":"may not export"}`), failure: "may not export (403)"},
	} {
		t.Run(name, func(t *testing.T) {
			api := httptest.NewServer(c.answer)
			defer api.Close()
			file := filepath.Join(t.TempDir(), "t.ndjson")
			if err := os.WriteFile(file, []byte("before"), 0o644); err != nil {
				t.Fatal(err)
			}
			got := runWith(t, newTenantCommand(), nil, "export", "T", file, "--url", api.URL, "--user", "op", "--password", "pw")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if c.failure != "" {
				if got.failure == nil || !strings.Contains(got.failure.Error(), c.failure) || string(text) != "before" {
					t.Errorf("got %v, want %q; the file has %d bytes", got.failure, c.failure, len(text))
				}
			} else if got.failure != nil || !strings.Contains(got.err, c.err) || !strings.HasPrefix(string(text), exportHead) {
				t.Errorf("got %v, %q; the file has %d bytes", got.failure, got.err, len(text))
			}
			if info, err := os.Stat(file); err != nil || c.failure == "" && info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestTenantMoves exports a tenant of the real program and imports it again.
func TestTenantMoves(t *testing.T) {
	data := startUp(t)
	askManagement(t, data, http.MethodPost, "/v1/tenants/ACME", `{"ext":{"a":1}}`)
	items := `{"op":"create","id":"m1","generate":true}` + "\n" + `{"op":"create","id":"m2","device":{"via":["m1"]}}` + "\n"
	if got := runWith(t, newDeviceCommand(), strings.NewReader(items), "import", "ACME", "--data", data); got.failure != nil {
		t.Fatal(got.failure)
	}
	file := filepath.Join(t.TempDir(), "acme.ndjson")
	if got := runWith(t, newTenantCommand(), nil, "export", "ACME", file, "--data", data); got.failure == nil || !strings.Contains(got.failure.Error(), "(403)") {
		t.Errorf("without the scope: %v", got.failure)
	}
	identities := filepath.Join(data, "identities.yaml")
	text, err := os.ReadFile(identities)
	if err != nil {
		t.Fatal(err)
	}
	scoped := strings.Replace(string(text), "may: [read, write]", "may: [read, write, export]", 1)
	if scoped == string(text) {
		t.Fatalf("no scopes in\n%s", text)
	}
	if err := os.WriteFile(identities, []byte(scoped), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the new scope", func() bool {
		return runWith(t, newTenantCommand(), nil, "export", "ACME", file, "--data", data).failure == nil
	})
	if got := runWith(t, newTenantCommand(), nil, "import", "COPY", file, "--data", data, "--split", "1"); got.failure != nil || !strings.Contains(got.err, "2 items in 2 requests") {
		t.Errorf("%v\n%s", got.failure, got.err)
	}
	again := runWith(t, newTenantCommand(), nil, "export", "COPY", "--data", data)
	if again.failure != nil || strings.Count(again.out, "\n") != 4 || !strings.Contains(again.out, `"pwd-hash"`) || !strings.Contains(again.out, `"via"`) {
		t.Errorf("%v\n%s", again.failure, again.out)
	}
}

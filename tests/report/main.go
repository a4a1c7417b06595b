// Command report reads what `go test -json` prints and shows what a reader of a
// build wants: one line a package as `go test` itself prints it, everything a
// failed test said, and at the end each skipped test with its reason, so that
// no skip goes unseen. It fails when a test failed and when nothing ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

type testID struct{ pkg, test string }

// summary collects what came and what has to be said at the end.
type summary struct {
	out                      io.Writer
	said                     map[testID]*strings.Builder
	failures                 []string
	skips                    []string
	passed, failed, packages int
}

func main() {
	s := &summary{out: os.Stdout, said: map[testID]*strings.Builder{}}
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	if !s.close() {
		os.Exit(1)
	}
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(s.out, lines.Text())
			continue
		}
		s.add(e)
	}
	return lines.Err()
}

func (s *summary) add(e event) {
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "build-fail":
		s.failures = append(s.failures, e.ImportPath+" does not build")
	case "output":
		s.output(id, e.Output)
	case "pass", "skip", "fail":
		s.finish(id, e.Action)
	}
}

// output keeps what a test says until it is known how it ended; a package's own
// closing line is shown at once.
func (s *summary) output(id testID, text string) {
	if id.test == "" {
		for _, closing := range []string{"ok  ", "FAIL\t", "?   ", "---", "panic", "exit status"} {
			if strings.HasPrefix(text, closing) {
				fmt.Fprint(s.out, text)
				return
			}
		}
	}
	b := s.said[id]
	if b == nil {
		b = &strings.Builder{}
		s.said[id] = b
	}
	b.WriteString(text)
}

func (s *summary) finish(id testID, action string) {
	said := ""
	if b := s.said[id]; b != nil {
		said = b.String()
		delete(s.said, id)
	}
	if id.test == "" {
		s.packages++
		if action == "fail" {
			fmt.Fprint(s.out, said)
			s.failures = append(s.failures, id.pkg)
		}
		return
	}
	switch action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		fmt.Fprint(s.out, said)
	case "skip":
		s.skips = append(s.skips, fmt.Sprintf("%s %s: %s", id.pkg, id.test, reason(said)))
	}
}

// reason is the text of t.Skip, which stands on an indented line of its own.
func reason(said string) string {
	var lines []string
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}

func (s *summary) close() bool {
	fmt.Fprintf(s.out, "%d packages, %d tests passed, %d failed, %d skipped\n", s.packages, s.passed, s.failed, len(s.skips))
	for _, skip := range s.skips {
		fmt.Fprintln(s.out, "skipped:", skip)
	}
	for _, failure := range s.failures {
		fmt.Fprintln(s.out, "failed:", failure)
	}
	return len(s.failures) == 0 && s.packages > 0
}

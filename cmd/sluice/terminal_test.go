package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestAsk(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "Yes\r\n": true, "n\n": false, "\n": false, "": false, "y": true, "maybe\n": false} {
		var out bytes.Buffer
		err := ask(t.Context(), strings.NewReader(answer), &out, "Delete it?")
		if (err == nil) != want || !strings.HasPrefix(out.String(), "Delete it? [y/N] ") {
			t.Errorf("%q: got %v, %q", answer, err, out.String())
		}
	}
}

func TestProgress(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	p := &progress{out: &out, what: "devices", total: 200, terminal: true, began: now, now: func() time.Time { return now }}
	now = now.Add(10 * time.Second)
	p.show(50)
	p.show(51) // too soon
	now = now.Add(10 * time.Second)
	p.show(200)
	p.end()
	want := "\r\x1b[K[#####...............] 25%, 30s left, 50 devices, 5 a second" +
		"\r\x1b[K[####################] 100%, 0s left, 200 devices, 10 a second\r\x1b[K"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
	out.Reset()
	now = now.Add(time.Second)
	p.total = 0
	p.show(5)
	if out.String() != "\r\x1b[K5 devices, 0 a second" {
		t.Errorf("without an end: got %q", out.String())
	}
	out.Reset()
	silent := newProgress(&out, "devices")
	silent.show(1)
	silent.end()
	if out.Len() > 0 {
		t.Errorf("no terminal: got %q", out.String())
	}
}

func TestImportProgress(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	r := newReport(&bytes.Buffer{}, &out, false, 1000)
	r.line.terminal, r.line.began, r.line.now = true, now, func() time.Time { return now }
	now = now.Add(4 * time.Second)
	r.sums.Items, r.sums.Failed = 80, 3
	r.progress(500)
	r.say("a line")
	if want := "\r\x1b[K[##########..........] 50%, 4s left, 80 items, 3 failed, 20 a second\r\x1b[Ka line\n"; out.String() != want {
		t.Errorf("got %q", out.String())
	}
}

func TestSpinner(t *testing.T) {
	out := &shared{}
	s := newSpinner(out) // no terminal
	s.show("nothing")
	s.end()
	if out.String() != "" {
		t.Errorf("no terminal: got %q", out.String())
	}
	s = &spinner{out: out, every: time.Millisecond}
	s.start()
	s.show(phaseSent)
	awaitText(t, out, "/ "+phaseSent)
	s.show(phaseAnswer)
	awaitText(t, out, phaseAnswer+" (0 s)")
	s.end()
	if !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Errorf("got %q", out.String())
	}
}

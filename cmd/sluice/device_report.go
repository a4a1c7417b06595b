package main

import (
	"bufio"
	"fmt"
	"io"
	"time"
)

// bulkLine is a line of the answer to a bulk request: a result, or the sums
// where Done is there.
type bulkLine struct {
	Line        int    `json:"line,omitempty"`
	ID          string `json:"id,omitempty"`
	Tenant      string `json:"tenant-id,omitempty"`
	Status      int    `json:"status,omitempty"`
	ETag        string `json:"etag,omitempty"`
	AuthID      string `json:"auth-id,omitempty"`
	Password    string `json:"password,omitempty"`
	Error       string `json:"error,omitempty"`
	Done        *bool  `json:"done,omitempty"`
	NotDoneFrom int    `json:"not-done-from,omitempty"`
}

// bulkSums is the last line of -o json.
type bulkSums struct {
	Done      bool   `json:"done"`
	Items     int    `json:"items"`
	Succeeded int    `json:"succeeded"`
	Failed    int    `json:"failed"`
	Requests  int    `json:"requests"`
	Error     string `json:"error,omitempty"`
}

// report says what became of the lines.
type report struct {
	out  *bufio.Writer
	err  io.Writer
	json bool
	size int64 // of the input, -1 = not known
	sums bulkSums
	line *progress
}

func newReport(out, err io.Writer, json bool, size int64) *report {
	return &report{out: bufio.NewWriter(out), err: err, json: json, size: size, line: newProgress(err, "items")}
}

// add takes a result, whose line is that of the input.
func (r *report) add(l bulkLine) error {
	r.sums.Items++
	if l.Error == "" {
		r.sums.Succeeded++
	} else {
		r.sums.Failed++
		r.failed(l)
	}
	switch {
	case r.json:
		return encodeJSON(r.out, l)
	case l.Password != "":
		_, err := fmt.Fprintf(r.out, "%s\t%s\t%s\n", oneLine(l.ID), oneLine(l.AuthID), oneLine(l.Password))
		return err
	}
	return nil
}

func (r *report) failed(l bulkLine) {
	name := ""
	if l.ID != "" {
		name = " " + oneLine(l.ID)
	}
	r.say("line %d%s: %s (%d)", l.Line, name, oneLine(l.Error), l.Status)
}

// say prints a line for people.
func (r *report) say(format string, args ...any) {
	r.line.end()
	fmt.Fprintf(r.err, format+"\n", args...)
}

// progress shows a terminal how far it is. read is how much of the input was read.
func (r *report) progress(read int64) {
	p := r.line
	now := p.now()
	if !p.terminal || now.Sub(p.shown) < progressInterval {
		return
	}
	took := now.Sub(p.began)
	p.draw(now, fmt.Sprintf("%s%d items, %d failed, %.0f a second", portion(read, r.size, took), r.sums.Items, r.sums.Failed,
		float64(r.sums.Items)/max(took.Seconds(), 0.001)))
}

// flush writes the results that came: those of a request are safe before the
// next one is sent.
func (r *report) flush() error {
	if err := r.out.Flush(); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// finish prints the sums. Its error is err, or says that items failed.
func (r *report) finish(err error) error {
	if r.sums.Done = err == nil; err != nil {
		r.sums.Error = err.Error()
	}
	if r.json {
		if e := encodeJSON(r.out, r.sums); e != nil && err == nil {
			err = e
		}
	}
	if e := r.flush(); e != nil && err == nil {
		err = e
	}
	r.say("%d items in %s and %s: %d done, %d failed", r.sums.Items, counted(r.sums.Requests, "request"),
		time.Since(r.line.began).Round(time.Millisecond), r.sums.Succeeded, r.sums.Failed)
	if err == nil && r.sums.Failed > 0 {
		err = fmt.Errorf("%d of %d items failed", r.sums.Failed, r.sums.Items)
	}
	return err
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

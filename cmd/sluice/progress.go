package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progress is a line on a terminal that says how far something is: a bar and the
// percentage where the end is known, the rate, and the time that remains. It
// shows nothing elsewhere.
type progress struct {
	out      io.Writer
	what     string
	total    int64 // 0 = not known
	terminal bool
	began    time.Time
	shown    time.Time
	drawn    bool
	now      func() time.Time
}

// progressInterval is how often a terminal is told how far it is.
const progressInterval = 200 * time.Millisecond

func newProgress(out io.Writer, what string) *progress {
	return &progress{out: out, what: what, terminal: isTerminal(out), began: time.Now(), now: time.Now}
}

// show says that so much was done.
func (p *progress) show(done int64) {
	now := p.now()
	if !p.terminal || now.Sub(p.shown) < progressInterval {
		return
	}
	rate := float64(done) / max(now.Sub(p.began).Seconds(), 0.001)
	p.draw(now, fmt.Sprintf("%s%d %s, %.0f a second", portion(done, p.total, now.Sub(p.began)), done, p.what, rate))
}

func (p *progress) draw(now time.Time, line string) {
	p.shown, p.drawn = now, true
	fmt.Fprintf(p.out, "\r\x1b[K%s", line)
}

// end removes the line.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}

// portion is a bar with the percentage and the time that remains, "" where the
// whole is not known.
func portion(done, whole int64, took time.Duration) string {
	if whole <= 0 {
		return ""
	}
	const width = 20
	done = min(done, whole)
	filled := int(width * done / whole)
	left := ""
	if done > 0 {
		left = ", " + (time.Duration(float64(took) * float64(whole-done) / float64(done))).Round(time.Second).String() + " left"
	}
	return fmt.Sprintf("[%s%s] %d%%%s, ", strings.Repeat("#", filled), strings.Repeat(".", width-filled), 100*done/whole, left)
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

const (
	// maxSplit is the largest size of a request's lines that can be asked for:
	// they are kept until their results are there.
	maxSplit = 256 << 20
	// maxItems is how many lines go in one request: with results of some 700 bytes
	// the answer fits into the 6 MiB that Lambda carries back. It refuses a longer
	// one when the items are done, and the generated passwords are lost.
	maxItems = 5000
	// maxResult is the longest line of an answer.
	maxResult = 1 << 20
	// A server that cannot take a request now is asked again so often, so long
	// after it said, at most.
	maxAgain     = 5
	maxAgainWait = 30 * time.Second
)

// sender has lines done in requests of a limited size.
type sender struct {
	client *managementClient
	path   string
	limit  int // bytes of a request's lines
	report *report
	read   func() int64 // how much of the input was read

	// wrap, if not nil, gives what stands before and after n lines of a request.
	// Lines of head have results of their own.
	wrap func(n int) (head []byte, headLines int, tail []byte)
}

// stopped is why sending ended before the end of the input.
type stopped struct {
	err    error
	unsure bool // lines that were sent have no result and may have been done
}

func (s *stopped) Error() string { return s.err.Error() }
func (s *stopped) Unwrap() error { return s.err }

// run sends what next gives until io.EOF.
func (s *sender) run(ctx context.Context, next func() (inputLine, error)) error {
	var queue []inputLine
	var inputErr error
	size := 0
	for {
		for inputErr == nil && size < s.limit && len(queue) < maxItems {
			var l inputLine
			if l, inputErr = next(); inputErr != nil {
				break
			}
			if l.long {
				if err := s.report.add(bulkLine{Line: l.number, Status: http.StatusRequestEntityTooLarge,
					Error: fmt.Sprintf("the line is longer than %d bytes", maxLine)}); err != nil {
					return err
				}
				continue
			}
			queue = append(queue, l)
			size += len(l.text) + 1
		}
		if len(queue) == 0 {
			break
		}
		n, bytes := s.fitting(queue)
		done, err := s.part(ctx, queue[:n], bytes)
		if e := s.report.flush(); e != nil && err == nil {
			err = e
		}
		for _, l := range queue[:done] {
			size -= len(l.text) + 1
		}
		queue = append(queue[:0:0], queue[done:]...)
		if err != nil {
			return s.explain(err, queue, n-done)
		}
	}
	if !errors.Is(inputErr, io.EOF) {
		return inputErr
	}
	return nil
}

// fitting says how many lines fit in a request, one at least.
func (s *sender) fitting(queue []inputLine) (n, bytes int) {
	for n < len(queue) && n < maxItems && (n == 0 || bytes+len(queue[n].text)+1 <= s.limit) {
		bytes += len(queue[n].text) + 1
		n++
	}
	return n, bytes
}

// explain says which lines were not done, and how to go on.
func (s *sender) explain(err error, queue []inputLine, sent int) error {
	var why *stopped
	if len(queue) == 0 || !errors.As(err, &why) {
		return err
	}
	first := queue[0].number
	if !why.unsure || sent == 0 {
		return fmt.Errorf("%w; nothing from line %d on was done", err, first)
	}
	return fmt.Errorf("%w; it is not known whether lines %d to %d were done; later ones were not sent", err, first, queue[sent-1].number)
}

// part sends lines in one request, or none of them when it is too large for the
// server: then the limit is smaller. done is how many lines have a result.
func (s *sender) part(ctx context.Context, lines []inputLine, size int) (done int, err error) {
	for try := 1; ; try++ {
		done, tooLarge, again, err := s.post(ctx, lines)
		switch {
		case again > 0 && try < maxAgain:
			if err := s.pause(ctx, again, err); err != nil {
				return done, err
			}
		case tooLarge == "":
			return done, err
		case len(lines)-done > 1:
			s.limit = max(size/2, 1)
			s.report.say("413: %s; requests have at most %d bytes from now on", tooLarge, s.limit)
			return done, nil
		default:
			l := bulkLine{Line: lines[done].number, Status: http.StatusRequestEntityTooLarge, Error: tooLarge}
			return done + 1, s.report.add(l)
		}
	}
}

// pause waits before a request is sent again. It returns why when it was interrupted.
func (s *sender) pause(ctx context.Context, d time.Duration, why error) error {
	s.report.say("%v; asking again in %s", why, d)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return why
	case <-t.C:
		return nil
	}
}

// post sends one request. again is when to send it again, nothing of it having
// been done.
func (s *sender) post(ctx context.Context, lines []inputLine) (done int, tooLarge string, again time.Duration, err error) {
	var head, tail []byte
	headLines := 0
	if s.wrap != nil {
		head, headLines, tail = s.wrap(len(lines))
	}
	body := &counter{r: bytes.NewReader(joined(head, lines, tail))}
	s.report.sums.Requests++
	reply, end, err := s.client.do(ctx, http.MethodPost, s.path, body, body.r.Size())
	if err != nil {
		return 0, "", 0, &stopped{fmt.Errorf("%s: %w", s.client.base.Host, err), body.read}
	}
	defer end()
	if reply.StatusCode != http.StatusOK {
		tooLarge, again, err = refusal(reply)
		return 0, tooLarge, again, err
	}
	if media, _, _ := mime.ParseMediaType(reply.Header.Get("Content-Type")); media != "application/x-ndjson" {
		return 0, "", 0, &stopped{fmt.Errorf("%s answered with %q: is this a management API of Sluice?", s.client.base.Host, media), true}
	}
	done, tooLarge, err = s.results(reply.Body, lines, headLines)
	return done, tooLarge, 0, err
}

// joined is the body of a request.
func joined(head []byte, lines []inputLine, tail []byte) []byte {
	size := len(head) + len(tail)
	for _, l := range lines {
		size += len(l.text) + 1
	}
	body := append(make([]byte, 0, size), head...)
	for _, l := range lines {
		body = append(append(body, l.text...), '\n')
	}
	return append(body, tail...)
}

// counter notes whether a body was read: then the server may have it.
type counter struct {
	r    *bytes.Reader
	read bool
}

func (c *counter) Read(b []byte) (int, error) {
	c.read = true
	return c.r.Read(b)
}

// refusal is an answer without results.
func refusal(reply *http.Response) (tooLarge string, again time.Duration, err error) {
	text, own := failureText(reply)
	code := reply.StatusCode
	if code == http.StatusRequestEntityTooLarge {
		return text, 0, nil
	}
	err = &apiError{code, text}
	// Only the API itself says with a Retry-After that it has done nothing.
	seconds, e := strconv.Atoi(reply.Header.Get("Retry-After"))
	if own && e == nil && seconds >= 0 && (code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests) {
		again = min(max(time.Duration(seconds)*time.Second, 100*time.Millisecond), maxAgainWait)
	}
	return "", again, &stopped{err, code >= http.StatusInternalServerError && again == 0}
}

// failureText is what an answer says of itself; own says that it is one of the API.
func failureText(reply *http.Response) (text string, own bool) {
	b, _ := io.ReadAll(io.LimitReader(reply.Body, 4096))
	var said struct{ Error, Message string }
	if json.Unmarshal(b, &said) == nil && said.Error != "" {
		return oneLine(said.Error), true
	}
	switch {
	case said.Message != "":
		text = said.Message
	case len(bytes.TrimSpace(b)) > 0:
		text = string(bytes.TrimSpace(b[:min(len(b), 200)]))
	default:
		text = http.StatusText(reply.StatusCode)
	}
	return oneLine(text), false
}

// results reads the answer to a request. The first headLines results are of
// what the sender added.
func (s *sender) results(answer io.Reader, lines []inputLine, headLines int) (done int, tooLarge string, err error) {
	in := bufio.NewScanner(answer)
	in.Buffer(make([]byte, 0, 4096), maxResult)
	for in.Scan() {
		var l bulkLine
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return done, "", &stopped{fmt.Errorf("a line of the answer does not decode: %w", err), true}
		}
		switch {
		case l.Done != nil:
			return s.last(l, done, lines, headLines)
		case l.Line <= headLines && l.Error == "":
		case l.Line <= headLines:
			return done, "", &stopped{fmt.Errorf("%s (%d)", oneLine(l.Error), l.Status), true}
		case l.Line != headLines+done+1 || done >= len(lines):
			return done, "", &stopped{fmt.Errorf("the answer has a result for line %d; expected line %d of %d", l.Line, headLines+done+1, headLines+len(lines)), true}
		default:
			l.Line = lines[done].number
			if err := s.report.add(l); err != nil {
				return done + 1, "", fmt.Errorf("write results: %w", err)
			}
			done++
			s.report.progress(s.read())
		}
	}
	if err = in.Err(); err == nil {
		err = errors.New("the connection broke")
	}
	return done, "", &stopped{err, true}
}

// last judges the last line of an answer.
func (s *sender) last(l bulkLine, done int, lines []inputLine, headLines int) (int, string, error) {
	switch {
	case *l.Done && done == len(lines):
		return done, "", nil
	case *l.Done:
		return done, "", &stopped{fmt.Errorf("the answer has %d results for %d lines", done, len(lines)), true}
	case l.Status == http.StatusRequestEntityTooLarge && l.NotDoneFrom == 0 && done < len(lines):
		return done, oneLine(l.Error), nil // all that has no result was not looked at
	}
	return done, "", &stopped{fmt.Errorf("%s (%d)", oneLine(l.Error), l.Status), true}
}

package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// verdict is what became of a request (contract: events, section 3).
type verdict uint8

const (
	taken       verdict = iota // 202, 204
	never                      // 400, 413, 415, 422
	refused                    // 401, 403 and what else says that this is not the place
	again                      // 408, 429, 5xx
	lostVerdict                // no answer
)

// verdicts are the labels of metrics.
var verdicts = [...]string{"taken", "never", "refused", "again", "lost"}

func verdictOf(code int) verdict {
	switch {
	case code >= 200 && code < 300:
		return taken
	case code == 400, code == 413, code == 415, code == 422:
		return never
	case code == 408, code == 429, code >= 500:
		return again
	}
	return refused
}

// sender makes requests to one place, and says once what is wrong with it.
type sender struct {
	url, what string
	pool      *http.Transport
	client    *http.Client
	log       *slog.Logger
	m         *results

	mu   sync.Mutex
	said string
}

const maxConns = 64

func newPool(conf *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig: conf.Clone(), ForceAttemptHTTP2: true, MaxIdleConnsPerHost: maxConns, MaxConnsPerHost: maxConns,
		IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 5 * time.Second,
	}
}

func newClient(pool *http.Transport) *http.Client {
	return &http.Client{Transport: pool, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // facts go where they are meant to, and nowhere else
	}}
}

// send makes one request for n facts.
func (s *sender) send(ctx context.Context, n int, encode func() (http.Header, []byte, error)) (verdict, error) {
	v, err := s.try(ctx, encode)
	s.m.by[v].Add(int64(n))
	if !errors.Is(ctx.Err(), context.Canceled) {
		s.say(ctx, err)
	}
	return v, err
}

func (s *sender) try(ctx context.Context, encode func() (http.Header, []byte, error)) (verdict, error) {
	header, body, err := encode()
	if err != nil {
		return never, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return never, err
	}
	req.Header = header
	req.Header["Idempotency-Key"] = nil // net/http repeats by itself on a connection that turned out closed
	resp, err := s.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return lostVerdict, iot.Errorf(iot.ErrTimeout, "no answer in time")
		}
		return lostVerdict, iot.Errorf(iot.ErrUnavailable, "not reached: %v", cause(err))
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	v := verdictOf(resp.StatusCode)
	switch v {
	case taken:
		return v, nil
	case again:
		return v, iot.Errorf(iot.ErrUnavailable, "answered %d%s", resp.StatusCode, words(said))
	case never:
		return v, iot.Errorf(iot.ErrInvalid, "answered %d%s", resp.StatusCode, words(said))
	}
	return v, iot.Errorf(iot.ErrForbidden, "answered %d%s", resp.StatusCode, words(said))
}

// cause leaves out what net/http puts around an error: method and URL.
func cause(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// words is what an answer says, short enough for an error.
func words(body []byte) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(body), "?")), " ")
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "..."
	}
	if text == "" {
		return ""
	}
	return ": " + text
}

// say logs a failure when its cause is another than the last time, and its end.
func (s *sender) say(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	s.mu.Lock()
	changed := text != s.said
	s.said = text
	s.mu.Unlock()
	switch {
	case !changed:
	case text == "":
		s.log.InfoContext(ctx, "facts are taken again", "by", s.what)
	default:
		s.log.WarnContext(ctx, "facts are not taken", "by", s.what, "err", fmt.Sprint(text))
	}
}

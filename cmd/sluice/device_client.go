package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-iot/sluice/internal/listen"
)

// defaultManagement is where the management API listens on this machine.
const defaultManagement = "http://127.0.0.1:28080"

// stallTimeout is how long nothing may come from a management API. Where it
// answers only at the end, as on Lambda, that is the time of one request.
const stallTimeout = 15 * time.Minute

// managementFlags say which management API to ask, and as whom.
type managementFlags struct{ loginFlags }

const managementFlagsHelp = `
On the machine of an installation the API, the operator and the CA are found in
operator.env of its data folder: --data, SLUICE_DATA, ./data or the XDG data
folder. Elsewhere give --url, --user and --password, or SLUICE_URL, SLUICE_USER
and SLUICE_PASSWORD.`

func (f *managementFlags) add(flags *pflag.FlagSet) {
	f.loginFlags.add(flags, "management API, such as https://host:28443 (default "+defaultManagement+")", "`name` of an operator", "his `secret`", "https")
}

func (f *managementFlags) complete() error {
	return f.loginFlags.complete("SLUICE_", defaultManagement)
}

// open returns a client; nothing is connected yet.
func (f *managementFlags) open() (*managementClient, error) {
	if err := f.complete(); err != nil {
		return nil, err
	}
	u, err := url.Parse(f.url)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("--url %q: expected a URL such as %s or https://host:28443", f.url, defaultManagement)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	// A server that refuses a request says so before its body is sent.
	transport.ExpectContinueTimeout = time.Second
	if f.ca != "" && u.Scheme == "https" {
		conf, err := listen.ClientTLS(listen.Files{CA: f.ca}, nil)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = conf(u.Hostname())
	} else {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &managementClient{base: u, user: f.user, password: f.password, stall: stallTimeout, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// managementClient asks a management API.
type managementClient struct {
	base           *url.URL
	user, password string
	http           *http.Client
	stall          time.Duration
}

func (c *managementClient) close() { c.http.CloseIdleConnections() }

// errStalled is why a request ends in which nothing moves any more.
var errStalled = errors.New("nothing came from the server for too long")

// do sends a request. The reply's body fails when nothing comes for too long;
// end, which is to be called when it was read, ends the request.
func (c *managementClient) do(ctx context.Context, method, path string, body io.Reader, size int64) (reply *http.Response, end func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watch := time.AfterFunc(c.stall, func() { cancel(errStalled) })
	stop := func() {
		watch.Stop()
		cancel(nil)
	}
	if reply, err = c.exchange(ctx, method, path, body, size); err != nil {
		err = plainHTTPError(ctx, err)
		stop()
		return nil, nil, err
	}
	raw := reply.Body
	reply.Body = &watched{ReadCloser: raw, ctx: ctx, moved: func() { watch.Reset(c.stall) }}
	return reply, func() {
		raw.Close()
		stop()
	}, nil
}

func (c *managementClient) exchange(ctx context.Context, method, path string, body io.Reader, size int64) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(path).String(), body)
	if err != nil {
		return nil, err
	}
	r.SetBasicAuth(c.user, c.password)
	if body != nil {
		r.ContentLength = size
		r.Header.Set("Content-Type", "application/x-ndjson")
		r.Header.Set("Expect", "100-continue")
	}
	return c.http.Do(r)
}

// watched tells of each read that brought something.
type watched struct {
	io.ReadCloser
	ctx   context.Context // of the request
	moved func()
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	if n > 0 {
		w.moved()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = plainHTTPError(w.ctx, err)
	}
	return n, err
}

// plainHTTPError drops what a person knows already: method and URL.
func plainHTTPError(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errStalled):
		return errStalled
	case cause != nil && errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("the connection broke")
	}
	return err
}

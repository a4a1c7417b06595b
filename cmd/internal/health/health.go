package health

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/sluice-iot/sluice/cmd/internal/command"
	"github.com/sluice-iot/sluice/internal/config"
)

// defaultTimeout is shorter than what platforms give a probe.
const defaultTimeout = 2 * time.Second

// Options say whom to ask.
type Options struct {
	URL       string            // "" = /readyz on Port, or on the health listener of the configuration
	File      string            // the configuration; "" = that of SLUICE_CONFIG, or none
	Timeout   time.Duration     // 0 = 2 s
	Port      string            // of the one listener of a platform, "" = there is none
	Listeners []config.Listener // where the process listens unless the configuration says otherwise
}

// AddFlags gives a command the flags --url, --config and --timeout.
func (o *Options) AddFlags(f *flag.FlagSet) {
	from := "the health listener of the configuration"
	if o.Port != "" {
		from = "port " + o.Port
	}
	f.StringVar(&o.URL, "url", "", "`URL` to ask; default /readyz on "+from)
	f.StringVar(&o.File, "config", "", "configuration `file` (YAML)")
	f.DurationVar(&o.Timeout, "timeout", defaultTimeout, "how long to wait")
}

// Run is the subcommand health of a program: it parses args and asks.
func Run(program string, args []string, o Options, stderr io.Writer) error {
	f := flag.NewFlagSet(program+" health", flag.ContinueOnError)
	f.SetOutput(stderr)
	o.AddFlags(f)
	if err := command.Parse(f, args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return Check(context.Background(), o)
}

// Check asks; an error says why the process is not ready.
func Check(ctx context.Context, o Options) error {
	url := o.URL
	if url == "" {
		var err error
		if url, err = o.readyURL(); err != nil {
			return err
		}
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy
	if o.URL == "" {
		// It asks its own container, and believes nothing but a status.
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %d", url, resp.StatusCode)
	}
	return nil
}

// readyURL is where this container's process answers probes.
func (o *Options) readyURL() (string, error) {
	const path = "/readyz"
	if o.Port != "" {
		return "http://" + net.JoinHostPort("127.0.0.1", o.Port) + path, nil
	}
	cfg, err := config.Load(config.Options{File: o.File, Env: os.Environ(), Listeners: o.Listeners})
	if err != nil {
		return "", err
	}
	list := cfg.ListenersOf(config.RoleHealth)
	if len(list) == 0 {
		return "", errors.New("the configuration has no listener of the role health: name what to ask with --url")
	}
	host, port, err := net.SplitHostPort(list[0].Address)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http"
	if list[0].TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port) + path, nil
}

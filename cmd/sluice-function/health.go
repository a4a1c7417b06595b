package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/sluice-iot/sluice/internal/config"
)

// health asks the process of this container whether it is ready; an error says why
// it is not.
func health(args []string, stderr io.Writer) error {
	f := flag.NewFlagSet("sluice-function health", flag.ContinueOnError)
	f.SetOutput(stderr)
	url := f.String("url", "", "`URL` to ask; default /readyz on PORT, or on the health listener of the configuration")
	file := f.String("config", "", "configuration `file` (YAML)")
	timeout := f.Duration("timeout", 2*time.Second, "how long to wait")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if *url == "" {
		address, err := healthAddress(*file)
		if err != nil {
			return err
		}
		*url = "http://" + address + "/readyz"
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, *url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %d", *url, resp.StatusCode)
	}
	return nil
}

// healthAddress is where this container's process answers probes.
func healthAddress(file string) (string, error) {
	if port := os.Getenv(portVariable); port != "" {
		return net.JoinHostPort("127.0.0.1", port), nil
	}
	cfg, err := config.Load(config.Options{File: file, Env: os.Environ(), Listeners: config.IdentityFunctionListeners()})
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
	return net.JoinHostPort(host, port), nil
}

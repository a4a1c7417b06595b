package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/spf13/pflag"

	"github.com/sluice-iot/sluice/internal/listen"
)

// defaultNorthbound is where a router listens for applications on this machine.
const defaultNorthbound = "amqp://127.0.0.1:15672"

// dialTimeout is how long connecting to a router may take.
const dialTimeout = 10 * time.Second

// applicationFlags say which router to connect to over AMQP 1.0, and as which
// application.
type applicationFlags struct{ loginFlags }

const applicationFlagsHelp = `
On the machine of a demo (sluice up --demo) the router, the user, the password
and the CA are found in its data folder: --data, SLUICE_DATA, ./data or the XDG
data folder. Elsewhere give --url, --user and --password, or SLUICE_AMQP_URL,
SLUICE_APP_USER and SLUICE_APP_PASSWORD; and --ca or SLUICE_CA for amqps. The
demo's secret is sent to its own machine only, unless --data names the demo.`

func (f *applicationFlags) add(flags *pflag.FlagSet) {
	f.loginFlags.add(flags, "router, such as amqps://host:15671 (default "+defaultNorthbound+")", "`name` of an application", "its `secret`", "amqps")
}

// complete takes what was not given from the environment, then from the demo.
func (f *applicationFlags) complete() error {
	demo, looked := findDemo(f.data)
	// The names of the management API counted here once; they still do where they
	// can only be meant for a router.
	old := func(string) string { return "" }
	if u := os.Getenv("SLUICE_URL"); u == "" || strings.HasPrefix(u, "amqp") {
		old = os.Getenv
	}
	f.url = cmp.Or(f.url, os.Getenv("SLUICE_AMQP_URL"), old("SLUICE_URL"))
	if f.url != "" && f.data == "" && !sameMachine(f.url, demo["SLUICE_ROUTER_URL"]) {
		demo = env{}
	}
	f.url = cmp.Or(f.url, demo["SLUICE_ROUTER_URL"], defaultNorthbound)
	f.ca = cmp.Or(f.ca, os.Getenv("SLUICE_CA"), demo["SLUICE_CA"])
	f.user = cmp.Or(f.user, os.Getenv("SLUICE_APP_USER"), old("SLUICE_USER"), demo["SLUICE_APP_USER"])
	f.password = cmp.Or(f.password, os.Getenv("SLUICE_APP_PASSWORD"), old("SLUICE_PASSWORD"))
	if f.user == demo["SLUICE_APP_USER"] {
		f.password = cmp.Or(f.password, demo["SLUICE_APP_PASSWORD"])
	}
	if f.user == "" || f.password == "" {
		if f.user != "" {
			return fmt.Errorf("who are you? %s needs --password or SLUICE_APP_PASSWORD", f.user)
		}
		return fmt.Errorf("who are you? give --user and --password (there is no demo for %s at %s)", f.url, looked)
	}
	return nil
}

// findDemo reads demo.env of a data folder, and from operator.env where its
// router is. It is empty where there is none.
func findDemo(data string) (demo env, looked string) {
	demo, looked = findEnv(data, demoFile)
	if len(demo) == 0 {
		return demo, looked
	}
	if operator, _ := findOperator(data); operator["SLUICE_ROUTER_URL"] != "" {
		demo["SLUICE_ROUTER_URL"] = operator["SLUICE_ROUTER_URL"]
	}
	return demo, looked
}

// sameMachine says whether a URL leads to the host of another one, or to this
// machine.
func sameMachine(a, b string) bool {
	u, err := url.Parse(a)
	if err != nil {
		return false
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return true
	}
	v, err := url.Parse(b)
	return err == nil && u.Hostname() != "" && u.Hostname() == v.Hostname()
}

// dial connects under a container-id.
func (f *loginFlags) dial(ctx context.Context, container string) (*goamqp.Conn, error) {
	u, err := url.Parse(f.url)
	if err != nil || u.Scheme != "amqp" && u.Scheme != "amqps" || u.Host == "" {
		return nil, fmt.Errorf("expected a URL such as amqp://host:15672 or amqps://host:15671")
	}
	opts := &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain(f.user, f.password), ContainerID: container}
	if u.Scheme == "amqps" {
		conf := func(name string) *tls.Config { return &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12} }
		if f.ca != "" {
			if conf, err = listen.ClientTLS(listen.Files{CA: f.ca}, nil); err != nil {
				return nil, err
			}
		}
		opts.TLSConfig = conf(u.Hostname())
	}
	within, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := goamqp.Dial(within, u.Scheme+"://"+u.Host, opts)
	if err != nil && ctx.Err() == nil && within.Err() != nil {
		return nil, fmt.Errorf("no router has answered within %s", dialTimeout)
	}
	return conn, err
}

// errWrongSecret is what a router says to a name or a secret that it does not know.
var errWrongSecret = errors.New("name or secret is wrong")

// plainError makes go-amqp's errors readable on one line.
func plainError(err error) error {
	var ae *goamqp.Error
	if errors.As(err, &ae) {
		if ae.Condition == goamqp.ErrCondUnauthorizedAccess && ae.Description == "" {
			return errWrongSecret
		}
		if ae.Description == "" {
			return errors.New(string(ae.Condition))
		}
		return fmt.Errorf("%s: %s", ae.Condition, oneLine(ae.Description))
	}
	if strings.Contains(err.Error(), "SASL PLAIN auth failed") {
		return errWrongSecret
	}
	return err
}

// hopeless says that trying again leads to the same: who one is, or what one may.
func hopeless(err error) bool {
	var ae *goamqp.Error
	if errors.As(err, &ae) {
		switch ae.Condition {
		case goamqp.ErrCondUnauthorizedAccess, goamqp.ErrCondNotFound, goamqp.ErrCondNotAllowed, goamqp.ErrCondNotImplemented, goamqp.ErrCondPreconditionFailed:
			return true
		}
		return false
	}
	return errors.Is(plainError(err), errWrongSecret)
}

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	goamqp "github.com/Azure/go-amqp"
	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/listen"
)

// defaultNorthbound is where a router listens for applications on this machine.
const defaultNorthbound = "amqp://127.0.0.1:15672"

// consumeFlags say where to consume from and how to print.
type consumeFlags struct {
	data, url, user, password, ca, output string
	container                             string // container-id; empty = that of consume
	count                                 int
}

func newConsumeCommand() *cobra.Command {
	var f consumeFlags
	cmd := &cobra.Command{
		Use:   "consume telemetry|event TENANT",
		Short: "Print the messages of a tenant's devices, one a line",
		Long: `Print the messages of a tenant's devices, one a line, until interrupted.

On the machine of a demo (sluice up --demo) the user, the password and the CA
are found in the data folder: --data, SLUICE_DATA, ./data or the XDG data
folder. Elsewhere give --url, --user and --password, or SLUICE_URL, SLUICE_USER
and SLUICE_PASSWORD. Each message is accepted once it is printed.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 || args[0] != "telemetry" && args[0] != "event" {
				return errors.New("expected telemetry or event, and a tenant: sluice consume telemetry TENANT")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.output != "text" && f.output != "json" {
				return fmt.Errorf("--output %q: expected text or json", f.output)
			}
			if f.count < 0 {
				return fmt.Errorf("--count %d: expected a number of messages, or 0 for no end", f.count)
			}
			if err := f.complete(); err != nil {
				return err
			}
			return f.consume(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args[0]+"/"+args[1])
		},
	}
	cmd.Flags().StringVar(&f.data, "data", "", "data `folder` of an installation on this machine")
	cmd.Flags().StringVar(&f.url, "url", "", "router, such as amqps://host:15671 (default "+defaultNorthbound+")")
	cmd.Flags().StringVar(&f.user, "user", "", "application `name`")
	cmd.Flags().StringVar(&f.password, "password", "", "its `secret`")
	cmd.Flags().StringVar(&f.ca, "ca", "", "CA certificate `file` to believe, for amqps")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
	cmd.Flags().IntVarP(&f.count, "count", "n", 0, "stop after so many messages")
	return cmd
}

// complete takes what was not given from the environment, then from the demo.
func (f *consumeFlags) complete() error {
	demo := env{}
	var looked string
	opts := config.Options{Env: os.Environ(), Find: true}
	if f.data != "" {
		opts.Flags = []config.Flag{{Path: "data", Value: f.data, Name: "--data"}}
	}
	if l, err := config.Load(opts); err == nil {
		looked = filepath.Join(l.Data, demoFile)
		if e, err := readEnv(looked); err == nil {
			demo = e
		}
		if e, err := readEnv(filepath.Join(l.Data, operatorFile)); err == nil {
			demo["SLUICE_ROUTER_URL"] = e["SLUICE_ROUTER_URL"]
		}
	}
	for _, v := range []struct {
		to        *string
		name, key string
		or        string
	}{
		{&f.url, "SLUICE_URL", "SLUICE_ROUTER_URL", defaultNorthbound},
		{&f.user, "SLUICE_USER", "SLUICE_APP_USER", ""},
		{&f.password, "SLUICE_PASSWORD", "SLUICE_APP_PASSWORD", ""},
		{&f.ca, "SLUICE_CA", "SLUICE_CA", ""},
	} {
		for _, from := range []string{os.Getenv(v.name), demo[v.key], v.or} {
			if *v.to == "" {
				*v.to = from
			}
		}
	}
	if f.user == "" || f.password == "" {
		return fmt.Errorf("who are you? give --user and --password (there is no demo at %s)", looked)
	}
	return nil
}

func (f *consumeFlags) consume(ctx context.Context, out, info io.Writer, address string) error {
	conn, err := f.dial(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", f.url, plainError(err))
	}
	defer conn.Close()
	session, err := conn.NewSession(ctx, nil)
	if err != nil {
		return plainError(err)
	}
	receiver, err := session.NewReceiver(ctx, address, &goamqp.ReceiverOptions{Credit: 100})
	if err != nil {
		return fmt.Errorf("consume from %s: %w", address, plainError(err))
	}
	fmt.Fprintf(info, "waiting for messages on %s; Ctrl-C ends\n", address)
	for n := 0; f.count == 0 || n < f.count; n++ {
		m, err := receiver.Receive(ctx, nil)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return plainError(err)
		}
		if err := f.print(out, m); err != nil {
			return err
		}
		if err := receiver.AcceptMessage(context.WithoutCancel(ctx), m); err != nil {
			return plainError(err)
		}
	}
	return nil
}

func (f *consumeFlags) dial(ctx context.Context) (*goamqp.Conn, error) {
	u, err := url.Parse(f.url)
	if err != nil || u.Scheme != "amqp" && u.Scheme != "amqps" || u.Host == "" {
		return nil, fmt.Errorf("expected a URL such as amqp://host:15672 or amqps://host:15671")
	}
	opts := &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain(f.user, f.password), ContainerID: cmp.Or(f.container, "sluice-consume")}
	if u.Scheme == "amqps" {
		conf := func(name string) *tls.Config { return &tls.Config{ServerName: name} }
		if f.ca != "" {
			if conf, err = listen.ClientTLS(listen.Files{CA: f.ca}, nil); err != nil {
				return nil, err
			}
		}
		opts.TLSConfig = conf(u.Hostname())
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return goamqp.Dial(ctx, u.Scheme+"://"+u.Host, opts)
}

// plainError makes go-amqp's errors readable on one line.
func plainError(err error) error {
	var ae *goamqp.Error
	if errors.As(err, &ae) {
		if ae.Condition == "amqp:unauthorized-access" && ae.Description == "" {
			return errors.New("name or secret is wrong")
		}
		return fmt.Errorf("%s: %s", ae.Condition, ae.Description)
	}
	if text := err.Error(); strings.Contains(text, "SASL PLAIN auth failed") {
		return errors.New("name or secret is wrong")
	}
	return err
}

// printed is one message for machines: payload is text, or payload-base64 is not.
type printed struct {
	Device      any            `json:"device"`
	Address     string         `json:"address,omitempty"`
	ContentType string         `json:"content-type,omitempty"`
	Created     *time.Time     `json:"created,omitempty"`
	ID          any            `json:"id,omitempty"`
	Payload     *string        `json:"payload,omitempty"`
	Base64      string         `json:"payload-base64,omitempty"`
	Properties  map[string]any `json:"properties,omitempty"`
}

func (f *consumeFlags) print(out io.Writer, m *goamqp.Message) error {
	p := describe(m)
	if f.output == "json" {
		return json.NewEncoder(out).Encode(p)
	}
	payload := p.Base64
	if p.Payload != nil {
		payload = oneLine(*p.Payload)
	}
	at := ""
	if p.Created != nil {
		at = p.Created.Local().Format("15:04:05.000") + " "
	}
	_, err := fmt.Fprintf(out, "%s%v %s %s\n", at, p.Device, p.ContentType, payload)
	return err
}

func describe(m *goamqp.Message) printed {
	p := printed{Device: m.ApplicationProperties["device_id"], Properties: m.ApplicationProperties}
	if q := m.Properties; q != nil {
		p.ID, p.Created = q.MessageID, q.CreationTime
		if q.To != nil {
			p.Address = *q.To
		}
		if q.ContentType != nil {
			p.ContentType = *q.ContentType
		}
	}
	body := m.GetData()
	if text, ok := m.Value.(string); ok {
		body = []byte(text)
	}
	if utf8.Valid(body) {
		text := string(body)
		p.Payload = &text
	} else {
		p.Base64 = base64.StdEncoding.EncodeToString(body)
	}
	return p
}

// oneLine keeps a payload from breaking the line or the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// commandFlags say what to send, and how long to wait.
type commandFlags struct {
	applicationFlags
	oneWay      bool
	timeout     time.Duration
	contentType string
	output      string
}

func newCommandCommand() *cobra.Command {
	var f commandFlags
	cmd := &cobra.Command{
		Use:   "command TENANT DEVICE NAME [PAYLOAD|-|@FILE]",
		Short: "Send a command to a device and print its answer",
		Long: `Send a command to a device as an application, over AMQP 1.0, and wait for its
answer. The payload of the answer goes to standard output, everything else to
standard error; on a terminal there you see how far the command is. PAYLOAD -
is read from standard input, @FILE from a file.

The device has to be reachable: subscribed to commands, or waiting for one after
an upload with a ttd. Whether it is, tells: sluice device reachable TENANT DEVICE

With --one-way no answer is asked for: the command ends when the device has got
it. The content type is application/json for a payload that is JSON, text/plain
for other text, else application/octet-stream, unless --content-type is given.

Exit code 0: the device got the one-way command, or answered with a status from
200 to 299. Exit code 1: everything else, with the reason on standard error:

  the device is not reachable      released: nothing of it reached the device,
                                   or it did not take it in time
  the command was rejected         by the router (there is no such device, or
                                   it is disabled) or by the device
  no answer                        the device got it; what it did is not known
  the device answered with 404     and the payload goes to standard output

With -o json one line goes to standard output, in every case that is known:
outcome (accepted, released, rejected, modified), status, content-type, payload
or payload-base64, correlation-id, milliseconds, error.
` + applicationFlagsHelp,
		Example: `  sluice command DEMO 4711 setBrightness '{"brightness": 80}'
  sluice command DEMO 4711 reboot --one-way
  sluice command DEMO 4711 update @firmware.bin --timeout 60s
  jq -n '{on: true}' | sluice command DEMO 4711 light - -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 3 || len(args) > 4 {
				return errors.New("expected a tenant, a device, the name of a command and perhaps a payload: sluice command DEMO 4711 setBrightness '{\"brightness\": 80}'")
			}
			if args[2] == "" {
				return errors.New("the command has no name: expected one such as setBrightness")
			}
			return checkNames(args[:2])
		},
		ValidArgsFunction: completeTenantDevice(2),
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVar(&f.oneWay, "one-way", false, "ask for no answer")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 10*time.Second, "how long to wait for the device and its answer")
	cmd.Flags().StringVar(&f.contentType, "content-type", "", "of the payload (default by what it is)")
	outputFlag(cmd, &f.output)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := checkOutput(f.output)
		if err != nil {
			return err
		}
		if f.timeout <= 0 {
			return fmt.Errorf("--timeout %s: expected more than 0", f.timeout)
		}
		payload, err := commandPayload(cmd, args[3:])
		if err != nil {
			return err
		}
		if err := f.complete(); err != nil {
			return err
		}
		c := &commandCall{tenant: args[0], device: args[1], name: args[2], payload: payload,
			contentType: f.contentType, oneWay: f.oneWay, timeout: f.timeout}
		if c.contentType == "" && len(payload) > 0 {
			c.contentType = contentTypeOf(payload)
		}
		status := newSpinner(cmd.ErrOrStderr())
		r, err := c.run(cmd.Context(), &f.applicationFlags, status.show)
		status.end()
		return printCommand(cmd.OutOrStdout(), cmd.ErrOrStderr(), asJSON, r, err)
	}
	return cmd
}

// checkNames refuses what cannot be a tenant and a device: it would lead
// elsewhere in an address or a path.
func checkNames(args []string) error {
	for i, kind := range []string{"tenant", "device"} {
		if i < len(args) {
			if err := checkName(kind, args[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkName(kind, name string) error {
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%q is no %s", name, kind)
	}
	for _, r := range name {
		if r <= ' ' || r == '/' || isControl(r) {
			return fmt.Errorf("%q is no %s: the id of one has neither / nor spaces", name, kind)
		}
	}
	return nil
}

// commandPayload is what the fourth argument says.
func commandPayload(cmd *cobra.Command, args []string) ([]byte, error) {
	if len(args) == 0 {
		return nil, nil
	}
	content, from, err := readInput(cmd, args[0])
	if !from {
		return []byte(args[0]), nil
	}
	return content, err
}

// contentTypeOf guesses from what a payload is.
func contentTypeOf(payload []byte) string {
	switch {
	case json.Valid(payload):
		return "application/json"
	case utf8.Valid(payload):
		return "text/plain"
	}
	return "application/octet-stream"
}

// commandResult is what became of a command, as -o json prints it.
type commandResult struct {
	Tenant        string         `json:"tenant"`
	Device        string         `json:"device"`
	Command       string         `json:"command"`
	CorrelationID string         `json:"correlation-id,omitempty"`
	Outcome       string         `json:"outcome,omitempty"` // "" = not known
	Status        int            `json:"status,omitempty"`  // of the answer
	Responding    string         `json:"responding-device,omitempty"`
	ContentType   string         `json:"content-type,omitempty"`
	Payload       *string        `json:"payload,omitempty"`
	Base64        string         `json:"payload-base64,omitempty"`
	Properties    map[string]any `json:"properties,omitempty"`
	Milliseconds  float64        `json:"milliseconds"`
	Error         string         `json:"error,omitempty"`

	body []byte
}

// printCommand says what became of a command. Its error is the exit code.
func printCommand(out, info io.Writer, asJSON bool, r *commandResult, failure error) error {
	if r == nil {
		return failure
	}
	if failure == nil && r.Status != 0 && (r.Status < 200 || r.Status > 299) {
		failure = fmt.Errorf("the device answered with %d", r.Status)
	}
	if asJSON {
		if failure != nil {
			r.Error = failure.Error()
		}
		if len(r.body) > 0 {
			if utf8.Valid(r.body) {
				text := string(r.body)
				r.Payload = &text
			} else {
				r.Base64 = base64.StdEncoding.EncodeToString(r.body)
			}
		}
		return errors.Join(encodeJSON(out, r), failure)
	}
	if failure != nil && r.Status == 0 {
		return failure
	}
	took := time.Duration(r.Milliseconds * float64(time.Millisecond)).Round(100 * time.Microsecond)
	if r.Status == 0 {
		fmt.Fprintf(info, "%s has the command %s after %s\n", r.Device, oneLine(r.Command), took)
		return failure
	}
	fmt.Fprintf(info, "%s answered with %d after %s%s\n", oneLine(r.Responding), r.Status, took, inBrackets(r.ContentType))
	return errors.Join(printPayload(out, r.body), failure)
}

func inBrackets(contentType string) string {
	if contentType == "" {
		return ""
	}
	return " (" + oneLine(contentType) + ")"
}

// printPayload writes a payload as it is; on a terminal what could disturb that
// is left out, and it ends with a line.
func printPayload(out io.Writer, payload []byte) error {
	if !isTerminal(out) {
		_, err := out.Write(payload)
		return err
	}
	if len(payload) == 0 {
		return nil
	}
	if !utf8.Valid(payload) {
		_, err := fmt.Fprintf(out, "(%d bytes that are no text)\n", len(payload))
		return err
	}
	_, err := fmt.Fprintln(out, harmless(string(payload)))
	return err
}

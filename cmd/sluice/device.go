package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/internal/config"
)

// importFlags say how a file is sent to the management API.
type importFlags struct {
	managementFlags
	split  string
	from   int
	output string
}

func (f *importFlags) add(cmd *cobra.Command) {
	f.managementFlags.add(cmd.Flags())
	cmd.Flags().StringVar(&f.split, "split", "4MiB", "largest `size` of one request; a longer line goes alone")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
}

func (f *importFlags) check() (split int, err error) {
	if f.output != "text" && f.output != "json" {
		return 0, fmt.Errorf("--output %q: expected text or json", f.output)
	}
	var size config.Size
	if err := size.UnmarshalText([]byte(f.split)); err != nil {
		return 0, fmt.Errorf("--split: %w", err)
	}
	if size < 1 || size > maxSplit {
		return 0, fmt.Errorf("--split %s: expected 1 to %d bytes", f.split, maxSplit)
	}
	return int(size), nil
}

const importFlagsHelp = `
The file goes in requests of at most --split bytes and 5000 lines, and in
smaller ones when the server answers 413. Failures are printed to standard error
with the numbers of their lines in the file, and the exit code is 1 when there
was any. When the connection breaks, the lines are named that may have been done
or not; sending one again is safe: a create that was done before answers 409.
`

func newDeviceImportCommand() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import TENANT [FILE]",
		Short: "Create, change and delete many devices",
		Long: `Have the items of a file done, one JSON object a line, as the bulk request of the
management API takes them; without FILE, or with -, of standard input:

  {"op": "create", "id": "meter-1", "device": {"ext": {"site": "Kiel"}}, "generate": true}
  {"op": "disable", "id": "meter-2"}

op is create, update, put (create or update), enable, disable or delete. With
"generate" a password is made. It can be seen this once: it goes to standard
output, a line for each with the device, the auth-id and the password.
With -o json all results go there, one a line, and at last the sums.
` + importFlagsHelp + managementFlagsHelp,
		Example: "  sluice device import ACME meters.ndjson > passwords.txt\n" +
			"  generate-devices | sluice device import ACME -o json > results.ndjson",
		Args:              tenantAndFile,
		ValidArgsFunction: completeTenantDevice(1),
	}
	f.add(cmd)
	cmd.Flags().IntVar(&f.from, "from", 1, "`line` to begin with, to go on where an earlier call ended")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.from < 1 {
			return fmt.Errorf("--from %d: expected the number of a line, from 1", f.from)
		}
		return f.send(cmd, args, "/v1/bulk/devices/"+url.PathEscape(args[0]), func(ctx context.Context, s *sender, in *lineReader) error {
			return s.run(ctx, func() (inputLine, error) {
				for {
					l, err := in.next()
					if err != nil || l.number >= f.from {
						return l, err
					}
				}
			})
		})
	}
	return cmd
}

// tenantAndFile checks the arguments of commands on a tenant.
func tenantAndFile(cmd *cobra.Command, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return fmt.Errorf("expected a tenant and at most one file: %s", cmd.UseLine())
	}
	return checkNames(args[:1])
}

// send opens the input, has do send it, and sums up.
func (f *importFlags) send(cmd *cobra.Command, args []string, path string, do func(context.Context, *sender, *lineReader) error) error {
	split, err := f.check()
	if err != nil {
		return err
	}
	client, err := f.open()
	if err != nil {
		return err
	}
	defer client.close()
	in, size, closeInput, err := openInput(cmd.Context(), cmd.InOrStdin(), args)
	if err != nil {
		return err
	}
	defer closeInput()
	lines := newLineReader(in)
	r := newReport(cmd.OutOrStdout(), cmd.ErrOrStderr(), f.output == "json", size)
	s := &sender{client: client, path: path, limit: split, report: r, read: lines.bytesRead}
	return r.finish(do(cmd.Context(), s, lines))
}

// openInput opens the file of the second argument, or standard input. size is
// -1 where it is not known.
func openInput(ctx context.Context, stdin io.Reader, args []string) (in io.Reader, size int64, closeInput func(), err error) {
	if len(args) < 2 || args[1] == "-" {
		return newInterruptible(ctx, stdin), -1, func() {}, nil
	}
	file, err := os.Open(args[1])
	if err != nil {
		return nil, 0, nil, err
	}
	size = -1
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	return file, size, func() { file.Close() }, nil
}

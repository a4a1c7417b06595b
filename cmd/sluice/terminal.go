package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
)

// isTerminal says whether a person reads or writes there.
func isTerminal(stream any) bool {
	f, ok := stream.(interface{ Fd() uintptr })
	return ok && isatty.IsTerminal(f.Fd())
}

// spinner shows a person at a terminal which phase something is in, and for how
// long. It shows nothing elsewhere.
type spinner struct {
	out   io.Writer
	every time.Duration

	mu    sync.Mutex
	phase string
	began time.Time
	frame int
	stop  chan struct{}
	done  sync.WaitGroup
}

// spinnerInterval is how often a spinner turns.
const spinnerInterval = 120 * time.Millisecond

// newSpinner writes to out while it is a terminal.
func newSpinner(out io.Writer) *spinner {
	s := &spinner{out: out, every: spinnerInterval}
	if isTerminal(out) {
		s.start()
	}
	return s
}

func (s *spinner) start() {
	s.stop, s.began = make(chan struct{}), time.Now()
	s.done.Go(func() {
		tick := time.NewTicker(s.every)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case now := <-tick.C:
				s.mu.Lock()
				s.frame++
				s.draw(now)
				s.mu.Unlock()
			}
		}
	})
}

// show names the phase.
func (s *spinner) show(phase string) {
	if s.stop == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = phase
	s.draw(time.Now())
}

func (s *spinner) draw(now time.Time) {
	if s.phase != "" {
		fmt.Fprintf(s.out, "\r\x1b[K%c %s (%.0f s)", `|/-\`[s.frame%4], s.phase, now.Sub(s.began).Seconds())
	}
}

// end removes it from the terminal.
func (s *spinner) end() {
	if s.stop == nil {
		return
	}
	close(s.stop)
	s.done.Wait()
	s.stop = nil
	fmt.Fprint(s.out, "\r\x1b[K")
}

// confirm asks a person at the terminal whether to go on. Where nobody can be
// asked, --yes is needed. yes is that flag.
func confirm(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	in := cmd.InOrStdin()
	if !isTerminal(in) {
		return fmt.Errorf("%s Nobody can be asked here: repeat the command with --yes", question)
	}
	return ask(cmd.Context(), in, cmd.ErrOrStderr(), question)
}

func ask(ctx context.Context, in io.Reader, out io.Writer, question string) error {
	fmt.Fprintf(out, "%s [y/N] ", question)
	answer, err := bufio.NewReader(newInterruptible(ctx, in)).ReadString('\n')
	if err != nil && answer == "" {
		fmt.Fprintln(out)
		return fmt.Errorf("no answer: nothing was done")
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return fmt.Errorf("nothing was done")
}

// readInput reads an argument of the form @FILE or -, and says false for another one.
func readInput(cmd *cobra.Command, argument string) (content []byte, from bool, err error) {
	switch {
	case argument == "-":
		content, err = readLimited(newInterruptible(cmd.Context(), cmd.InOrStdin()), "standard input")
	case strings.HasPrefix(argument, "@"):
		content, err = readFile(argument[1:])
	default:
		return nil, false, nil
	}
	return content, true, err
}

// maxInput bounds an object or a payload that is read: no part of Sluice takes a longer one.
const maxInput = 16 << 20

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, path)
}

func readLimited(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxInput {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, maxInput)
	}
	return b, nil
}

// outputFlag declares -o.
func outputFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVarP(to, "output", "o", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// checkOutput is whether -o asks for JSON.
func checkOutput(output string) (json bool, err error) {
	if output != "text" && output != "json" {
		return false, fmt.Errorf("--output %q: expected text or json", output)
	}
	return output == "json", nil
}

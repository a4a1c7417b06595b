package observe

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/mattn/go-isatty"
)

// LogOptions say what is logged and how.
type LogOptions struct {
	Level  string // debug, info (also ""), warn, error
	Format string // text, json, or auto (also ""): text on a terminal, else json
}

// NewLogger returns a logger that writes to w.
func NewLogger(w io.Writer, o LogOptions) (*slog.Logger, error) {
	level := slog.LevelInfo
	if o.Level != "" {
		if err := level.UnmarshalText([]byte(o.Level)); err != nil {
			return nil, fmt.Errorf("log level %q; expected debug, info, warn or error", o.Level)
		}
	}
	text := false
	switch o.Format {
	case "", "auto":
		text = terminal(w)
	case "text":
		text = true
	case "json":
	default:
		return nil, fmt.Errorf("log format %q; expected auto, text or json", o.Format)
	}
	options := &slog.HandlerOptions{Level: level}
	if text {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

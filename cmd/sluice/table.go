package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// widestColumn is how far a column is filled with blanks: a longer cell moves the
// rest of its own row only.
const widestColumn = 64

// printTable writes rows under a heading.
func printTable(out io.Writer, heading []string, rows [][]string) error {
	return printRows(out, append([][]string{heading}, rows...))
}

// printRows writes rows whose columns stand below each other. Whatever is in a
// cell, it stays in its row.
func printRows(out io.Writer, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i := range row {
			row[i] = oneLine(row[i])
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if w := columns(row[i]); w <= widestColumn {
				widths[i] = max(widths[i], w)
			}
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", max(0, widths[i]-columns(cell))+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// columns is how many columns of a terminal a text takes.
func columns(text string) (n int) {
	for _, r := range text {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana),
			r >= 0x3000 && r <= 0x303e, r >= 0xff01 && r <= 0xff60, r >= 0x1f300 && r <= 0x1faff:
			n += 2
		default:
			n++
		}
	}
	return n
}

// encodeJSON writes a value and the end of the line.
func encodeJSON(out io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return printJSON(out, text)
}

// printJSON writes JSON that is there, and the end of the line. What could disturb a
// terminal is escaped, which stays the same text.
func printJSON(out io.Writer, text []byte) error {
	_, err := fmt.Fprintf(out, "%s\n", escapeJSON(strings.TrimSpace(string(text))))
	return err
}

// escapeJSON escapes control characters that JSON lets stand in a text. Those below
// a blank can only be between its values.
func escapeJSON(text string) string {
	if !strings.ContainsFunc(text, isEscapable) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if isEscapable(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// escapedFor is out, with what could disturb a terminal escaped if it is one.
func escapedFor(out io.Writer) io.Writer {
	if isTerminal(out) {
		return &escaping{out: out}
	}
	return out
}

// escaping is [escapeJSON] for JSON that comes in pieces.
type escaping struct {
	out  io.Writer
	rest []byte // begins a character
}

func (e *escaping) Write(b []byte) (int, error) {
	text := append(e.rest, b...)
	whole := len(text)
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if at := len(text) - back; utf8.RuneStart(text[at]) {
			if !utf8.FullRune(text[at:]) {
				whole = at
			}
			break
		}
	}
	_, err := io.WriteString(e.out, escapeJSON(string(text[:whole])))
	e.rest = append(e.rest[:0], text[whole:]...)
	return len(b), err
}

func isEscapable(r rune) bool { return r > ' ' && (isControl(r) || r == utf8.RuneError) }

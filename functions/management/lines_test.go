package management_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/internal/iot"
)

const maxText = 64

// split returns the items of a body: their text, or ! for one that is too long.
func split(t testing.TB, next func() (int, []byte, error, error)) (items []string, err error) {
	last := 0
	for {
		number, text, bad, err := next()
		if err != nil {
			return items, err
		}
		if number <= last || len(text) > maxText {
			t.Fatalf("item %d of %d bytes after item %d", number, len(text), last)
		}
		last = number
		if bad != nil {
			if !errors.Is(bad, iot.ErrTooLarge) {
				t.Fatal(bad)
			}
			text = []byte("!")
		}
		items = append(items, string(text))
	}
}

// FuzzLines expects lines to be those that a simple splitting finds.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"", "\n", "a\nb", "a\r\n\n b \n", strings.Repeat("x", 65) + "\na", strings.Repeat("x", 64) + "\n", "{}\n{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := split(t, management.Lines(iotest.OneByteReader(bytes.NewReader(body)), maxText))
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		var want []string
		for line := range bytes.Lines(body) {
			text := string(bytes.Trim(line, " \t\r\n"))
			if len(line) > maxText {
				text = "!"
			}
			if text != "" {
				want = append(want, text)
			}
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("%q: got %q, want %q", body, got, want)
		}
	})
}

// FuzzElements expects the elements of every valid array to be found, and an end
// of everything else.
func FuzzElements(f *testing.F) {
	for _, s := range []string{"", "[]", " [ ] ", "[1,2]", `[{"a":[1,"]"]},"\"]"]`, "[1", "[1,]", "[}]", "{}", "[1] x", `["\\"]`, "[" + strings.Repeat("1", 70) + ",2]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := split(t, management.Elements(bytes.NewReader(body), maxText))
		var want []json.RawMessage
		if json.Unmarshal(body, &want) != nil || want == nil {
			return
		}
		if !errors.Is(err, io.EOF) || len(got) != len(want) {
			t.Fatalf("%q: got %q, %v", body, got, err)
		}
		for i := range want {
			if text := string(want[i]); got[i] != text && (got[i] != "!" || len(text) < maxText/2) {
				t.Fatalf("%q: element %d: got %q, want %q", body, i, got[i], text)
			}
		}
	})
}

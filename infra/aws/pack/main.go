package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bootstrap is the name that the runtime provided.al2023 starts.
const bootstrap = "bootstrap"

// packed is the time of every entry: the first that the format can say.
var packed = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("pack", flag.ContinueOnError)
	out := f.String("o", "", "archive to write")
	files := f.String("files", "", "folder whose files are packed, too")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *out == "" || f.NArg() != 1 {
		return errors.New("want pack -o ARCHIVE [-files FOLDER] PROGRAM")
	}
	archive, err := pack(f.Arg(0), *files)
	if err != nil {
		return err
	}
	if err := os.WriteFile(*out, archive, 0o644); err != nil {
		return err
	}
	program, err := os.Stat(f.Arg(0))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s  %.1f MB, unpacked %.1f MB, sha256 %x\n", *out, float64(len(archive))/1e6, float64(program.Size())/1e6, sha256.Sum256(archive))
	return err
}

// entry is a file of the archive.
type entry struct {
	name, path string
	mode       fs.FileMode
}

func pack(program, folder string) ([]byte, error) {
	entries := []entry{{bootstrap, program, 0o755}}
	if folder != "" {
		more, err := list(folder)
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	w.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	for _, e := range entries {
		if err := add(w, e); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// list is what the folder holds, all readable by whoever runs the function.
func list(folder string) (entries []entry, err error) {
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", path)
		}
		name, err := filepath.Rel(folder, path)
		if err == nil && name == bootstrap {
			err = fmt.Errorf("%s is the name of the program", path)
		}
		entries = append(entries, entry{filepath.ToSlash(name), path, 0o644})
		return err
	})
	return entries, err
}

func add(w *zip.Writer, e entry) error {
	h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: packed}
	h.SetMode(e.mode)
	to, err := w.CreateHeader(h)
	if err != nil {
		return err
	}
	from, err := os.Open(e.path)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = io.Copy(to, from)
	return err
}

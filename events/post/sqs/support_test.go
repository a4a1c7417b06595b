package sqs_test

import (
	"crypto/md5"
	"encoding/hex"
	"log/slog"
	"strings"
)

// sum is what SQS says it got.
func sum(text string) string {
	h := md5.Sum([]byte(text))
	return hex.EncodeToString(h[:])
}

func logger(b *strings.Builder) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

package amqp_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
)

func TestFrames(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes []byte
		want  amqp.Frame
	}{
		{"heartbeat", []byte{
			0, 0, 0, 8, // size
			2,    // data offset: 2 words
			0,    // AMQP
			0, 0, // channel
		}, amqp.Frame{Body: []byte{}}},
		{"AMQP on a channel", []byte{
			0, 0, 0, 12, // size
			2,          // data offset: 2 words
			0,          // AMQP
			0x12, 0x34, // channel
			0, 0x53, 0x17, 0x45, // end()
		}, amqp.Frame{Channel: 0x1234, Body: []byte{0, 0x53, 0x17, 0x45}}},
		{"SASL", []byte{
			0, 0, 0, 9, // size
			2,    // data offset: 2 words
			1,    // SASL
			0, 0, // ignored
			7, // body
		}, amqp.Frame{Type: amqp.FrameSASL, Body: []byte{7}}},
		{"extended header", []byte{
			0, 0, 0, 14, // size
			3,    // data offset: 3 words
			0,    // AMQP
			0, 1, // channel
			9, 9, 9, 9, // extended header, ignored
			7, 7, // body
		}, amqp.Frame{Channel: 1, Body: []byte{7, 7}}},
		{"extended header alone", []byte{0, 0, 0, 12, 3, 0, 0, 1, 9, 9, 9, 9}, amqp.Frame{Channel: 1, Body: []byte{}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, n, err := amqp.ParseFrame(append(bytes.Clone(tt.bytes), "next"...), 512)
			if err != nil || n != len(tt.bytes) {
				t.Fatalf("got length %d and %v, want %d", n, err, len(tt.bytes))
			}
			if diff := cmp.Diff(tt.want, f); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if cap(f.Body) != len(f.Body) {
				t.Errorf("appending to the body would overwrite the next frame")
			}
			for i := range tt.bytes {
				if _, n, err := amqp.ParseFrame(tt.bytes[:i:i], 512); n != 0 || err != nil {
					t.Errorf("the first %d bytes: got %d and %v, want an incomplete frame", i, n, err)
				}
			}
		})
	}
}

func TestMalformedFrames(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		bytes        []byte
	}{
		{"size below the header", "size 7, the header alone has 8 bytes", []byte{0, 0, 0, 7, 2, 0, 0}},
		{"size of nothing", "size 0", []byte{0, 0, 0, 0}},
		{"larger than allowed", "size 513, at most 512 allowed", []byte{0, 0, 2, 1}},
		{"as large as can be", "size 4294967295, at most 512 allowed", []byte{0xff, 0xff, 0xff, 0xff}},
		{"data offset inside the header", "data offset 1 words in a frame of 8 bytes", []byte{0, 0, 0, 8, 1, 0, 0, 0}},
		{"data offset of nothing", "data offset 0 words", []byte{0, 0, 0, 8, 0, 0, 0, 0}},
		{"data offset beyond the frame", "data offset 3 words in a frame of 11 bytes", []byte{0, 0, 0, 11, 3, 0, 0, 0}},
		{"unknown type", "frame type 2", []byte{0, 0, 0, 8, 2, 2, 0, 0}},
		{"HTTP", "size 1195725856, at most 512 allowed", []byte("GET / HTTP/1.1")},
		{"protocol header", "size 1095586128", []byte(amqp.HeaderAMQP)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, n, err := amqp.ParseFrame(tt.bytes, 512)
			var fe *amqp.FrameError
			if !errors.As(err, &fe) || !strings.Contains(err.Error(), tt.reason) || n != 0 || f.Body != nil {
				t.Errorf("got %v, %d, %v, want %q", f, n, err, tt.reason)
			}
		})
	}
}

func TestAppendFrame(t *testing.T) {
	b := amqp.AppendHeartbeat([]byte("x"))
	b = amqp.AppendFrame(b, amqp.FrameAMQP, 7, &amqp.End{})
	at := len(b)
	b = amqp.OpenFrame(b, amqp.FrameAMQP, 300)
	b = (&amqp.Transfer{Handle: 1}).Append(b)
	b = amqp.CloseFrame(append(b, "payload"...), at)

	want := []byte{
		'x',
		0, 0, 0, 8, 2, 0, 0, 0, // heartbeat
		0, 0, 0, 12, 2, 0, 0, 7, 0, 0x53, 0x17, 0x45, // end()
		0, 0, 0, 23, 2, 0, 1, 44, // header
		0, 0x53, 0x14, 0xc0, 3, 1, 0x52, 1, // transfer(1)
		'p', 'a', 'y', 'l', 'o', 'a', 'd',
	}
	if !bytes.Equal(b, want) {
		t.Errorf("got  % x\nwant % x", b, want)
	}
	f, n, err := amqp.ParseFrame(b[at:], 512)
	if err != nil || n != 23 || f.Channel != 300 {
		t.Fatalf("got %v, %d, %v", f, n, err)
	}
	p, payload, err := amqp.DecodePerformative(f.Body)
	if err != nil || string(payload) != "payload" || p.(*amqp.Transfer).Handle != 1 {
		t.Errorf("got %v, %q, %v", p, payload, err)
	}
}

func TestFrameEveryPrefix(t *testing.T) {
	eachComposite(t, func(t *testing.T, c composite) {
		b := amqp.AppendFrame(nil, amqp.FrameAMQP, 1, c.full)
		for n := range len(b) {
			if _, got, err := amqp.ParseFrame(b[:n:n], uint32(len(b))); got != 0 || err != nil {
				t.Errorf("the first %d of %d bytes: got %d and %v, want an incomplete frame", n, len(b), got, err)
			}
		}
		if _, _, err := amqp.ParseFrame(b[:4], uint32(len(b)-1)); err == nil {
			t.Error("a frame over the maximum is waited for")
		}
	})
}

package amqp

import (
	"encoding/binary"
	"fmt"
)

// FrameType is the type byte of a frame (Part 2, section 2.3; Part 5, section 5.3).
type FrameType uint8

// The two frame types.
const (
	FrameAMQP FrameType = 0
	FrameSASL FrameType = 1
)

// MinMaxFrameSize is the smallest max-frame-size a peer may announce; SASL
// frames never exceed it by the specification.
const MinMaxFrameSize = 512

const frameHeaderSize = 8

// Protocol headers (Part 2, section 2.2).
const (
	HeaderAMQP = "AMQP\x00\x01\x00\x00"
	HeaderTLS  = "AMQP\x02\x01\x00\x00"
	HeaderSASL = "AMQP\x03\x01\x00\x00"
)

// Frame is one frame; Body points into the parsed bytes and is empty for a
// heartbeat.
type Frame struct {
	Type    FrameType
	Channel uint16
	Body    []byte
}

// FrameError is a violation of framing (amqp:connection:framing-error).
type FrameError struct{ Reason string }

func (e *FrameError) Error() string { return "amqp: framing: " + e.Reason }

// ParseFrame parses the frame at the head of b. n is its length, or 0 when b
// holds only part of it. A frame longer than max is refused before its body is waited for.
func ParseFrame(b []byte, max uint32) (f Frame, n int, err error) {
	if len(b) < 4 {
		return Frame{}, 0, nil
	}
	size := binary.BigEndian.Uint32(b)
	if size < frameHeaderSize {
		return Frame{}, 0, &FrameError{fmt.Sprintf("size %d, the header alone has 8 bytes", size)}
	}
	if size > max {
		return Frame{}, 0, &FrameError{fmt.Sprintf("size %d, at most %d allowed", size, max)}
	}
	if len(b) < frameHeaderSize {
		return Frame{}, 0, nil
	}
	doff := uint32(b[4]) * 4
	if doff < frameHeaderSize || doff > size {
		return Frame{}, 0, &FrameError{fmt.Sprintf("data offset %d words in a frame of %d bytes", b[4], size)}
	}
	if b[5] > 1 {
		return Frame{}, 0, &FrameError{fmt.Sprintf("frame type %d", b[5])}
	}
	if uint64(len(b)) < uint64(size) {
		return Frame{}, 0, nil
	}
	return Frame{FrameType(b[5]), binary.BigEndian.Uint16(b[6:]), b[doff:size:size]}, int(size), nil
}

// OpenFrame appends a frame header; CloseFrame, given the offset where it
// began, fills in the size.
func OpenFrame(b []byte, t FrameType, channel uint16) []byte {
	return append(b, 0, 0, 0, 0, 2, byte(t), byte(channel>>8), byte(channel))
}

// CloseFrame completes the frame that OpenFrame began at offset at.
func CloseFrame(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}

// AppendFrame appends one frame with the performative p.
func AppendFrame(b []byte, t FrameType, channel uint16, p Performative) []byte {
	at := len(b)
	return CloseFrame(p.Append(OpenFrame(b, t, channel)), at)
}

// AppendHeartbeat appends an empty frame.
func AppendHeartbeat(b []byte) []byte {
	return append(b, 0, 0, 0, 8, 2, 0, 0, 0)
}

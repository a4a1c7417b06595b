package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
)

// readAssertions makes the sections that an adapter puts before a device's data:
// the assertion in the delivery annotations, tenant and device in the message
// annotations, and the device in the application properties.
func (o *opts) readAssertions() error {
	if o.assertions == "" {
		return nil
	}
	text, err := os.ReadFile(o.assertions)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		device, token, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			return fmt.Errorf("%s: expected a device and its assertion", o.assertions)
		}
		b := enc{}.section(0x71, true, "x-opt-reg-assertion", token)
		b = b.section(0x72, true, "tenant_id", o.tenant, "device_id", device)
		b = b.section(0x74, false, "device_id", device)
		o.asserted = append(o.asserted, b)
	}
	return nil
}

// makeDevices makes the section that names the device, for so many of them.
func (o *opts) makeDevices() {
	for i := range o.devices {
		o.asserted = append(o.asserted, enc{}.section(0x74, false, "device_id", fmt.Sprintf("device-%d", i)))
	}
}

// section appends a map of strings, whose keys are symbols in annotations.
func (b enc) section(code byte, symbols bool, entries ...string) enc {
	b = append(b.desc(code), 0xd1)
	at := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	for i, e := range entries {
		switch {
		case i%2 == 0 && symbols:
			b = b.sym(e)
		case len(e) < 256:
			b = b.str(e)
		default:
			b = append(binary.BigEndian.AppendUint32(append(b, 0xb1), uint32(len(e))), e...)
		}
	}
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	binary.BigEndian.PutUint32(b[at+4:], uint32(len(entries)))
	return b
}

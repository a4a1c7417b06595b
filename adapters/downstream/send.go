package downstream

import (
	"context"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Send implements adapters.Downstream. Messages of the endpoints telemetry,
// event and command_response are taken, the last only with ReplyID, CorrelationID and
// a Status of a response, else the error is iot.ErrInvalid.
func (s *Set) Send(ctx context.Context, m *iot.Message) error {
	if ctx.Err() != nil {
		return errTooLate
	}
	d, err := s.start(m, nil)
	if err != nil {
		return err
	}
	defer s.leave()
	select {
	case <-d.sig:
	case <-ctx.Done():
		d.cancel()
		<-d.sig
	}
	err = d.err
	if d.final {
		s.recycle(d)
	}
	return err
}

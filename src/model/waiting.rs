//! The steps of a session that wait for those that the network looks ahead to, as bytes.
//!
//! ```text
//! count u32 | for each step: the unit (`state::put_unit`) | a u32 for each table | an f32 for each dense column
//!           | if the network reads characters: length u32, a u32 for each
//! ```

use super::state::{Fields, StateError, put_unit};
use super::{Model, Session};
use crate::encode::{Features, Unit};

/// Appends the waiting steps of a session whose model looks ahead.
pub(super) fn encode(session: &Session, model: &Model, out: &mut Vec<u8>) {
    let layout = model.encoder.layout();
    out.extend_from_slice(&(session.units.len() as u32).to_le_bytes());
    for (step, unit) in session.units.iter().enumerate() {
        put_unit(out, unit);
        let numbers =
            |out: &mut Vec<u8>, ids: &[u32]| ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
        numbers(out, session.features.ids_of(step, layout));
        session.features.dense_of(step, layout).iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        if layout.chars.is_some() {
            let chars = session.features.chars_of(step);
            out.extend_from_slice(&(chars.len() as u32).to_le_bytes());
            numbers(out, chars);
        }
    }
}

/// The inverse of [`encode`].
pub(super) fn decode(fields: &mut Fields<'_>, model: &Model) -> Result<(Vec<Unit>, Features), StateError> {
    let damaged = |what: &str| StateError::Damaged(format!("of its waiting steps {what}"));
    let layout = model.encoder.layout();
    let most = model.network.shape().window.map_or(0, |window| window.most_waiting());
    let count = fields.u32()? as usize;
    if count > most {
        return Err(damaged(&format!("there are {count}, the model waits for {most} at most")));
    }
    let (mut units, mut features) = (Vec::new(), Features { steps: count, ..Features::default() });
    for _ in 0..count {
        units.push(fields.unit()?);
        for table in &layout.tables {
            let id = fields.u32()?;
            if id as usize >= table.rows {
                return Err(damaged("one is in no vocabulary"));
            }
            features.ids.push(id);
        }
        for _ in 0..layout.dense {
            let x = f32::from_bits(fields.u32()?);
            if !x.is_finite() {
                return Err(damaged("one has a number that is not finite"));
            }
            features.dense.push(x);
        }
        if let Some(rows) = layout.chars {
            for _ in 0..fields.u32()? {
                let char = fields.u32()?;
                if char as usize >= rows {
                    return Err(damaged("one has a character in no alphabet"));
                }
                features.chars.push(char);
            }
            features.char_ends.push(features.chars.len() as u32);
        }
    }
    Ok((units, features))
}

-- An invitation is as good as what its inviter could do now. Until here it outlived his move to another company or organisation, the
-- establishments that he does not look after any more, and the actions that he does not hold any more.

-- Whether who invited may still give what he offered. Nobody is asked of an invitation that nobody made.
create function hse_may_still_invite(offer invitations) returns boolean language sql stable as $$
    select offer.invited_by is null or exists (
        select from users u
          join roles own on own.id = u.role_id
          join roles given on given.id = offer.role_id
          left join organizations o on o.id = offer.organization_id
         where u.id = offer.invited_by
           and hse_is_admitted(u.id)
           and own.hierarchy <= least(given.hierarchy, 3)
           and exists (select from permissions p where p.role_id = own.id and p.action_name = 'create_user')
           and case own.hierarchy
                   when 1 then true
                   when 2 then u.partner_company_id in (offer.partner_company_id, o.partner_company_id)
                   else u.organization_id = offer.organization_id
               end
           and (own.hierarchy < 3 or u.has_all_establishments or (
               not offer.has_all_establishments
               -- Where he has another role in place of his own, that one is no admin's.
               and not exists (
                   select from establishments e
                    where e.id = any(offer.establishment_ids)
                      and not exists (
                          select from user_establishments a
                           where a.user_id = u.id and a.establishment_id = e.id and a.role_id is null
                      )
               )
           ))
           -- What is exclusive to the level of a role comes with the level.
           and not exists (
               select from permissions p
                 join actions a on a.name = p.action_name
                where p.role_id = given.id
                  and a.exclusive_to is distinct from given.hierarchy
                  and not exists (select from permissions h where h.role_id = own.id and h.action_name = p.action_name)
           )
    )
$$;
revoke execute on function hse_may_still_invite(invitations) from public;

-- As in 0008, but for who may still invite.
create or replace function hse_open_invitation(token bytea) returns setof hse_invitation
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    found_invitation invitations;
    opened hse_invitation;
    tenant_is_active boolean;
begin
    select * into found_invitation from invitations i
     where i.token_hash = token and i.status = 'pending' and i.expires_at > now()
       for update;
    if not found then
        return;
    end if;
    opened.id := found_invitation.id;
    opened.email := found_invitation.email;
    opened.first_name := found_invitation.first_name;
    opened.last_name := found_invitation.last_name;
    opened.role_id := found_invitation.role_id;
    opened.partner_company_id := found_invitation.partner_company_id;
    opened.organization_id := found_invitation.organization_id;
    opened.has_all_establishments := found_invitation.has_all_establishments;
    opened.expires_at := found_invitation.expires_at;
    opened.establishment_ids := array(
        select e.id from establishments e
         where e.id = any(found_invitation.establishment_ids) and e.organization_id = found_invitation.organization_id
    );
    select r.name into opened.role_name from roles r where r.id = found_invitation.role_id;
    select coalesce(o.name, p.name), coalesce(o.is_active, true) and coalesce(p.is_active, true)
      into opened.tenant_name, tenant_is_active
      from (select 1) as once
      left join organizations o on o.id = found_invitation.organization_id
      left join partner_companies p on p.id in (found_invitation.partner_company_id, o.partner_company_id);
    select u.first_name || ' ' || u.last_name into opened.invited_by_name from users u where u.id = found_invitation.invited_by;
    opened.is_void := opened.role_name is null or not tenant_is_active or not hse_may_still_invite(found_invitation);
    return next opened;
end
$$;

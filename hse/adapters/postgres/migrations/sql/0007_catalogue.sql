-- The catalogue of actions, the four system roles, and what each holds. A later migration adds to it.

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('create_partner_company', 'partner_company', 'create', 'organization_management', 'Make a partner company', 1, 32767),
    ('read_partner_company', 'partner_company', 'read', 'organization_management', 'See partner companies', null, 32767),
    ('update_partner_company', 'partner_company', 'update', 'organization_management', 'Change a partner company', null, 32767),
    ('delete_partner_company', 'partner_company', 'delete', 'organization_management', 'Delete a partner company', 1, 32767),
    ('view_partner_analytics', 'partner_company', 'analyse', 'organization_management', 'See what a partner company looks after, in numbers', 2, 32767),
    ('view_all_organizations', 'organization', 'read_all', 'organization_management', 'See the organisations of every partner, and those without', 1, 32767),
    ('create_organization', 'organization', 'create', 'organization_management', 'Make an organisation', 2, 32767),
    ('read_organization', 'organization', 'read', 'organization_management', 'See organisations', null, 32767),
    ('update_organization', 'organization', 'update', 'organization_management', 'Change an organisation', null, 32767),
    ('delete_organization', 'organization', 'delete', 'organization_management', 'Delete an organisation', 2, 32767),
    ('create_establishment', 'establishment', 'create', 'site_management', 'Make an establishment', 3, 32767),
    ('read_establishment', 'establishment', 'read', 'site_management', 'See establishments', null, 32767),
    ('update_establishment', 'establishment', 'update', 'site_management', 'Change an establishment', null, 32767),
    ('delete_establishment', 'establishment', 'delete', 'site_management', 'Delete an establishment', 3, 32767),
    ('create_area', 'area', 'create', 'site_management', 'Make an area', null, 32767),
    ('read_area', 'area', 'read', 'site_management', 'See areas', null, 32767),
    ('update_area', 'area', 'update', 'site_management', 'Change or move an area', null, 32767),
    ('delete_area', 'area', 'delete', 'site_management', 'Delete an area', null, 32767),
    ('create_device', 'device', 'create', 'device_management', 'Register a device', null, 32767),
    ('read_device', 'device', 'read', 'device_management', 'See devices', null, 32767),
    ('update_device', 'device', 'update', 'device_management', 'Change, place, enable or disable a device', null, 32767),
    ('delete_device', 'device', 'delete', 'device_management', 'Delete a device', null, 32767),
    ('manage_device_token', 'device', 'manage_token', 'device_management', 'Issue, rotate and revoke the token of a device', null, 32767),
    ('create_user', 'user', 'create', 'user_management', 'Invite people', null, 3),
    ('read_user', 'user', 'read', 'user_management', 'See users and invitations', null, 32767),
    ('update_user', 'user', 'update', 'user_management', 'Change, enable or disable a user', null, 3),
    ('delete_user', 'user', 'delete', 'user_management', 'Delete a user', null, 3),
    ('manage_organization_users', 'user', 'assign', 'user_management', 'Say at which establishments a user works, and as what', 3, 32767),
    ('manage_user_sessions', 'session', 'manage', 'user_management', 'See and end the sessions and API keys of others', null, 3),
    ('create_role', 'role', 'create', 'role_management', 'Make a custom role', null, 3),
    ('read_role', 'role', 'read', 'role_management', 'See roles and what they hold', null, 32767),
    ('update_role', 'role', 'update', 'role_management', 'Change a custom role', null, 3),
    ('delete_role', 'role', 'delete', 'role_management', 'Delete a custom role', null, 3),
    ('assign_role', 'role', 'assign', 'role_management', 'Give a user another role', null, 3),
    ('manage_system_roles', 'role', 'manage_system', 'role_management', 'Change what the system roles hold', 1, 32767),
    ('create_api_key', 'api_key', 'create', 'integration', 'Make an API key of one''s own', null, 32767),
    ('read_audit', 'audit_entry', 'read', 'audit', 'Read the audit log', null, 32767);

insert into roles (name, description, type, hierarchy) values
    ('root', 'The operator', 'system', 1),
    ('partner', 'A company that looks after organisations', 'system', 2),
    ('admin', 'Runs an organisation', 'system', 3),
    ('user', 'Works at establishments', 'system', 4);

insert into permissions (role_id, action_name)
select roles.id, actions.name from roles, actions where roles.type = 'system' and roles.name = 'root';

insert into permissions (role_id, action_name)
select roles.id, actions.name
  from roles, actions
 where roles.type = 'system'
   and roles.name in ('partner', 'admin')
   and (actions.exclusive_to is null or actions.exclusive_to = roles.hierarchy)
   and (roles.name = 'partner' or actions.resource <> 'partner_company');

insert into permissions (role_id, action_name)
select roles.id, granted.name
  from roles, unnest(array['read_organization', 'read_establishment', 'read_area', 'read_device']) as granted (name)
 where roles.type = 'system' and roles.name = 'user';
